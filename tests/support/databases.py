"""MLflow's database, made by MLflow once for all tests of a process: its migrations take longer than a small search.

``test_tracking.py`` has MLflow make one at its place, as in a user's store, and so have the tests of other processes.
"""

import atexit
import shutil
import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path

from metaloom.orchestrator import store
from metaloom.orchestrator.tracking import client

prepare_database = store.prepare_database


def copy_mlflow_database(database: Path) -> None:
    """Put a database as MLflow makes it at ``database``."""
    shutil.copyfile(_made_by_mlflow(), database)


def share_mlflow_database() -> None:
    """Let every store of this process that has no database yet begin with a copy; call before MLflow is imported."""

    def prepare(database: Path) -> None:
        if database.name == client.MLFLOW_DATABASE and not database.exists():
            copy_mlflow_database(database)
        prepare_database(database)

    store.prepare_database = prepare


@cache
def _made_by_mlflow() -> Path:
    client.quieten()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = Path(tempfile.mkdtemp(prefix="metaloom-mlflow-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made, whole = folder / "made.db", folder / "whole.db"
    prepare_database(made)
    SqlAlchemyStore(f"sqlite:///{made}", str(folder)).engine.dispose()
    with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect(whole)) as target:
        source.backup(target)  # with what is in the write-ahead log
        target.execute("PRAGMA journal_mode=WAL")
    return whole
