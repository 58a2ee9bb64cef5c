"""Puts the places of artifacts right in MLflow's database of a store that was moved or copied.

MLflow keeps the place of each experiment's and run's files as an absolute path, so that a moved store would write them
where it stood before, and a copied one into the store that it was copied from.
"""

import re
import shutil
import sqlite3
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from metaloom.orchestrator.private_api import MLFLOW_PLACES
from metaloom.orchestrator.tracking.client import MLFLOW_ARTIFACTS

WRITE_TIMEOUT_S = 60.0  # another process may be writing into the database
ROOT = re.compile(rf"(?P<root>(?:file://)?/(?:.*/)?{MLFLOW_ARTIFACTS})(?:/.*)?")


def put_right(database: Path, chosen: Callable[[], Collection[str]]) -> str:
    """Let all that lay in another store's folder of artifacts lie in this one's; return what was done, or nothing.

    Files that an earlier version wrote at the former place are copied, unless this store has the run's own.

    Args:
        database: MLflow's, which exists.
        chosen: Returns the places that the store's searches have chosen themselves, which stay.
    """
    own = database.absolute().parent / MLFLOW_ARTIFACTS
    with closing(sqlite3.connect(database, timeout=WRITE_TIMEOUT_S)) as connection:
        present = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        tables = {table: columns for table, columns in MLFLOW_PLACES.items() if table in present}
        former = sorted(root for root in _roots(connection, tables) if not _is_same(path_of(root), own))
        former = [root for root in former if root not in chosen()] if former else []
        left = {root: runs for root in former if (runs := _move(connection, tables, root, own))}
    for root, runs in left.items():
        _copy_runs(path_of(root), own, runs)
    where = " and ".join(str(path_of(root)) for root in left)
    return f"kept its artifacts in {where}, and now keeps them in {own}" if left else ""


def path_of(place: str) -> Path:
    """Return the folder of a place: a path, or a ``file:`` address."""
    return Path(unquote(urlsplit(place).path)) if place.startswith("file:") else Path(place)


def is_local(place: str) -> bool:
    """Return whether a place is on this machine's file system."""
    return place.startswith(("/", "file:"))


def _roots(connection: sqlite3.Connection, tables: dict[str, tuple[str, ...]]) -> set[str]:
    """Return the folders of artifacts of any store in which something lies."""
    found: set[str] = set()
    for table, column in ((table, column) for table, columns in tables.items() for column in columns):
        for (place,) in connection.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL"):
            if match := ROOT.fullmatch(str(place)):
                found.add(match["root"])
    return found


def _move(connection: sqlite3.Connection, tables: dict[str, tuple[str, ...]], root: str, own: Path) -> list[str]:
    """Let what lies in ``root`` lie in ``own``; return the runs among it."""
    place, below = own.as_uri() if root.startswith("file://") else str(own), f"{root}/"
    with connection:  # one transaction
        query = "SELECT run_uuid FROM runs WHERE substr(artifact_uri, 1, ?) = ?"
        runs = [run for (run,) in connection.execute(query, (len(below), below))]
        for table, column in ((table, column) for table, columns in tables.items() for column in columns):
            moved = f"UPDATE {table} SET {column} = ? || substr({column}, ?)"
            where = f"WHERE {column} = ? OR substr({column}, 1, ?) = ?"
            connection.execute(f"{moved} {where}", (place, len(root) + 1, root, len(below), below))
    return runs


def _is_same(one: Path, other: Path) -> bool:
    """Return whether two paths are the same folder, also by a link or another mount."""
    return one == other or (one.exists() and other.exists() and one.samefile(other))


def _copy_runs(former: Path, own: Path, runs: Collection[str]) -> None:
    for run in runs:
        if (former / run).is_dir() and not (own / run).exists():
            shutil.copytree(former / run, own / run)
