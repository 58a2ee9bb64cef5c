"""Removes the study of a search from a store's Optuna database."""

import contextlib

import optuna

from metaloom.orchestrator.errors import StoreError
from metaloom.orchestrator.store import Store
from metaloom.orchestrator.tracking.databases import sqlite_uri


def remove_study(store: Store, name: str) -> bool:
    """Delete the study ``name`` with its trials; return whether there was one.

    Raises:
        StoreError: The database cannot be written.
    """
    path = store.optuna_database
    if not path.exists():
        return False
    try:
        storage = optuna.storages.RDBStorage(sqlite_uri(path))
        try:
            with contextlib.suppress(KeyError):
                optuna.delete_study(study_name=name, storage=storage)
                return True
        finally:
            storage.engine.dispose()
    except Exception as error:  # SQLAlchemy's and Optuna's own; a database of another version raises RuntimeError
        line = str(error).strip().splitlines()[0]
        raise StoreError(f"{path}: the study '{name}' cannot be removed: {line}; the search is still there") from error
    return False
