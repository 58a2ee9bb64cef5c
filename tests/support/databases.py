"""MLflow's database, made by MLflow once for all tests of a process: its migrations take longer than a small search.

``test_tracking.py`` has MLflow make one at its place, as in a user's store, and so do processes with ``OWN_TABLES``.
"""

import atexit
import shutil
import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path

from metaloom.orchestrator.tracking import tables

make_mlflow_tables = tables.make_mlflow_tables


def copy_mlflow_database(database: Path) -> None:
    """Put a database as MLflow makes it at ``database``."""
    shutil.copyfile(_made_by_mlflow(), database)


def share_mlflow_database() -> None:
    """Let every store of this process that has no database yet begin with a copy."""
    tables.make_mlflow_tables = copy_mlflow_database


@cache
def _made_by_mlflow() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="metaloom-mlflow-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = folder / "made.db"
    make_mlflow_tables(made)
    with closing(sqlite3.connect(made)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    return made
