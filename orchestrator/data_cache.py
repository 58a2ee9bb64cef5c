"""The data cache of a store: prepared arrays and downloads, which are made again when they are needed."""

from dataclasses import dataclass
from pathlib import Path

import filelock

from metaloom.dashboards import queries
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.store import Store, explained
from metaloom.workers.records.names import CACHE_FOLDER, GIVEN_FOLDER, RUNNING

__all__ = ["CACHE_FOLDER", "CachedFile", "clean", "contents"]
LOCK, ARRAYS = ".lock", ".arrow"  # a download's lock keeps the name of its file, that of prepared arrays does not


@dataclass(frozen=True)
class CachedFile:
    """A file of the cache.

    Attributes:
        name: Its path inside the cache.
        bytes: Its size.
    """

    name: str
    bytes: int


def contents(store: str | Path) -> list[CachedFile]:
    """Return the files of a store's cache, the largest first; none where there is no store."""
    home = Store(store)
    files = [path for path in home.cache.rglob("*") if path.is_file() and path.suffix != LOCK]
    found = [CachedFile(str(path.relative_to(home.cache)), path.stat().st_size) for path in files]
    return sorted(found, key=lambda one: (-one.bytes, one.name))


def clean(store: str | Path) -> list[CachedFile]:
    """Remove the files of a store's cache, and return them; a file that another process is making is left.

    Data that were given from Python are left too: nothing makes them again.

    Raises:
        SearchError: A search of the store runs, and may need them.
        StoreError: One cannot be removed.
    """
    home = Store(store)
    running = [row["name"] for row in queries.list_searches(home.path) if row["state"] == RUNNING]
    if running:
        raise SearchError(f"{home.cache} is in use by {', '.join(running)}; wait until it has ended, or stop it first")
    removed = []
    for one in contents(store):
        path = home.cache / one.name
        if path.parent.name == GIVEN_FOLDER:
            continue
        lock = path.with_suffix(LOCK) if path.suffix == ARRAYS else path.with_name(path.name + LOCK)
        with explained(home.cache):
            try:
                with filelock.FileLock(lock, timeout=0):
                    path.unlink(missing_ok=True)
            except filelock.Timeout:
                continue
        removed.append(one)
    return removed
