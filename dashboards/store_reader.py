"""An open store: the records of its searches, kept up to date by their new events, and shared by all readers."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from metaloom.dashboards import queries
from metaloom.dashboards.rows import ListedSearch
from metaloom.workers.records import names as records
from metaloom.workers.records.following import FollowedSearch, journal_version
from metaloom.workers.records.journal import RecordsError
from metaloom.workers.records.journal_sources import emptiness, is_empty
from metaloom.workers.records.search import SearchRecord

MOST_RECORDS = 8  # searches whose records are kept: one of 1,000 trials with 12 reports each takes 90 MB
T = TypeVar("T")


@dataclass
class _Known:
    """What is kept of a search whose record was read.

    Attributes:
        version: Of its journal.
        stored: The record, as its journal has it.
        alive: Whether its driver was alive, if it ran.
        shown: The record, as readers get it.
        derived: What was computed from it, by what computed it.
    """

    version: str
    stored: SearchRecord
    alive: bool
    shown: SearchRecord
    derived: dict[Any, Any] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)  # of ``derived``


class OpenStore:
    """A store that is read again and again; safe for threads.

    Args:
        path: The store's folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._followed: OrderedDict[str, FollowedSearch] = OrderedDict()  # the last used at the end
        self._known: dict[str, _Known] = {}
        self._running: dict[str, tuple[str, dict[str, Any] | None]] = {}  # journal's version; the driver, if it runs
        self._rows: dict[str, tuple[str, ListedSearch]] = {}

    def version(self, name: str) -> str:
        """Return a text that changes when anything of search ``name`` changes; raises QueryError if there is none."""
        version = journal_version(queries.search_folder(self.path, name))
        known = self._running.get(name)
        if known is None or known[0] != version:
            try:
                self.record(name)
            except (queries.QueryError, RecordsError):  # its page says why
                self._running[name] = (version, None)
            known = self._running[name]
        return f"{version}-{int(known[1] is None or queries.is_alive(known[1]))}"

    def record(self, name: str) -> SearchRecord:
        """Return the record of search ``name``, which no reader may change; raises as ``queries.search_record``.

        It is the same object until something changes.
        """
        return self._present(name).shown

    def derived(self, name: str, compute: Callable[[SearchRecord], T]) -> T:
        """Return what a function computes from the record of search ``name``, once for each record.

        The function tells results apart, so that it has to be a module's own.
        """
        known = self._present(name)
        with known.lock:
            if compute not in known.derived:
                known.derived[compute] = compute(known.shown)
            found: T = known.derived[compute]
        return found

    def listed(self) -> tuple[ListedSearch, ...]:
        """Return the rows of all searches, the newest first."""
        names = records.search_names(self.path)
        with self._lock:
            for gone in self._rows.keys() - set(names):
                del self._rows[gone]
        return tuple(sorted(map(self._row, names), key=lambda row: -(row.created or 0.0)))

    def warm(self) -> None:
        """Read what the first pages need: all rows, and the records of the newest searches."""
        for row in self.listed()[:MOST_RECORDS][::-1]:
            if row.state not in (records.EMPTY, records.UNREADABLE):
                self.record(row.name)

    def _row(self, name: str) -> ListedSearch:
        version = self.version(name)
        cached = self._rows.get(name)
        if cached is None or cached[0] != version:
            cached = (version, queries.listed_search(self.path, name, self.record))
            self._rows[name] = cached
        return cached[1]

    def _present(self, name: str) -> _Known:
        """Return what is known of a search, brought up to date."""
        folder = queries.search_folder(self.path, name)
        version, stored = self._read(name, folder)
        running = stored.state == records.RUNNING
        alive = running and queries.is_alive(stored.process)
        known = self._known.get(name)
        if known is None or known.stored is not stored or known.alive != alive:
            known = _Known(version, stored, alive, queries.as_it_is(stored, alive=alive))
            with self._lock:
                if name in self._followed:
                    self._known[name] = known
        self._running[name] = (version, stored.process if running else None)
        return known

    def _read(self, name: str, folder: Path) -> tuple[str, SearchRecord]:
        """Return the record as it is stored, and a version of the journal that is not newer."""
        with self._lock:
            search = self._followed.pop(name, None) or FollowedSearch(folder)
            self._followed[name] = search
            while len(self._followed) > MOST_RECORDS:
                self._known.pop(self._followed.popitem(last=False)[0], None)
        version = journal_version(folder)
        try:
            return version, search.read()
        except RecordsError:
            if is_empty(folder):
                raise queries.QueryError(emptiness(name)) from None
            raise
