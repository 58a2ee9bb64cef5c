"""What the projections' SQLite files have in common: a write-ahead log, made before anybody else opens them."""

import sqlite3
from contextlib import closing
from pathlib import Path


def prepare_database(database: Path) -> None:
    """Make a fresh SQLite file that logs ahead, which it then does for every program; a file that is there stays.

    A commit then waits for the disk once, not three times: most of what MLflow and Optuna cost a trial of no work.
    """
    if not database.exists():
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
