"""An open store: records of searches, read once for each version of their files, and shared by all readers."""

import threading
from pathlib import Path

from metaloom.dashboards import queries
from metaloom.dashboards.rows import ListedSearch
from metaloom.workers.records import names as records
from metaloom.workers.records.search import SearchRecord

FILES = (records.JOURNAL_FILE, f"{records.JOURNAL_FILE}-wal", records.JOURNAL_LOG)


class OpenStore:
    """A store that is read again and again; safe for threads.

    Args:
        path: The store's folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._records: dict[str, tuple[str, SearchRecord]] = {}
        self._rows: dict[str, tuple[str, ListedSearch]] = {}

    def version(self, name: str) -> str:
        """Return a text that changes when anything of search ``name`` changes; raises QueryError if there is none."""
        folder = queries.search_folder(self.path, name)
        cached = self._records.get(name)
        alive = cached is None or queries.is_alive(cached[1].process)
        return "-".join([*(_stamp(folder / file) for file in FILES), str(int(alive))])

    def record(self, name: str) -> SearchRecord:
        """Return the record of search ``name``, which no reader may change; raises as ``queries.search_record``."""
        version = self.version(name)
        with self._lock:
            cached = self._records.get(name)
            if cached is None or cached[0] != version:
                cached = (version, queries.search_record(self.path, name))
                self._records[name] = cached
        return cached[1]

    def listed(self) -> tuple[ListedSearch, ...]:
        """Return the rows of all searches, the newest first."""
        return tuple(sorted(map(self._row, records.search_names(self.path)), key=lambda row: -(row.created or 0.0)))

    def _row(self, name: str) -> ListedSearch:
        version = self.version(name)
        cached = self._rows.get(name)
        if cached is None or cached[0] != version:
            cached = (version, queries.listed_search(self.path, name))
            self._rows[name] = cached
        return cached[1]


def _stamp(file: Path) -> str:
    try:
        status = file.stat()
    except FileNotFoundError:
        return "0"
    return f"{status.st_mtime_ns:x}.{status.st_size:x}"
