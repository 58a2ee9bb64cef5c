"""The record of a search that is read again and again: of its new events alone, where they follow the known ones.

The chain of digests makes this safe: where the last known row is still in its place with its digest, all rows before it
are those that were read. Otherwise the journal was repaired, replaced or damaged, and is read as a whole. The earlier
rows are verified again whenever the database itself was written, not its write-ahead log alone.
"""

import threading
from collections.abc import Sequence
from pathlib import Path

from metaloom.workers.records import names
from metaloom.workers.records.journal import (
    DIGEST,
    Damaged,
    Values,
    break_in,
    event_of,
    has_digests,
    is_write_ahead,
    reading,
)
from metaloom.workers.records.journal_sources import log_tail, read_journal
from metaloom.workers.records.search import SearchRecord

FILES = (names.JOURNAL_FILE, f"{names.JOURNAL_FILE}-wal", names.JOURNAL_LOG)
ROWS = f"SELECT id, time, trial, kind, payload, {DIGEST} FROM {names.EVENTS_TABLE} WHERE id > ? ORDER BY id"


def journal_version(folder: Path) -> str:
    """Return a text that changes with every event of the journal in ``folder``, and when its files are replaced.

    An event lengthens the log, so that a coarse clock of the file system hides none.
    """
    return "-".join(_stamp(folder / name) for name in FILES)


class FollowedSearch:
    """The search in ``folder``; any thread may read it. A record that was given out never changes."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._version, self._record = "", SearchRecord()
        self._last: Values | None = None  # the last row; None if the next reading must be of the whole journal
        self._database = ""  # its stamp at that reading

    def read(self) -> SearchRecord:
        """Return what ``SearchRecord.read`` returns; raises as it does."""
        with self._lock:
            version = journal_version(self._folder)  # before the rows: what comes in between is read again
            if version != self._version:
                self._version = ""  # an error leaves it to be read as a whole
                written, self._database = self._database, _stamp(self._folder / names.JOURNAL_FILE)
                last, self._last = self._last, None
                new = None if last is None else self._rows_after(last, thorough=written != self._database)
                if new is None:
                    self._record, last = self._whole()
                else:
                    self._record = self._record.with_events(map(event_of, new))
                self._version, self._last = version, new[-1] if new else last
            return self._record

    def _whole(self) -> tuple[SearchRecord, Values | None]:
        """Read the whole journal; return its last row too, if others can follow it."""
        found = read_journal(self._folder)
        record = SearchRecord.read(self._folder, found)
        followed = not found.problem and not self._is_legacy()
        return record, tuple(found.rows[-1]) if followed else None

    def _rows_after(self, last: Values, *, thorough: bool) -> Sequence[Values] | None:
        """Return the rows after the last known one; None unless the files prove that the database is the journal.

        ``thorough`` verifies the rows before it too.
        """
        tail = log_tail(self._folder / names.JOURNAL_LOG)  # first: a running search writes the database before the log
        path, (number, *_, digest) = self._folder / names.JOURNAL_FILE, last
        try:
            if not is_write_ahead(path):
                return None
            with reading(path) as connection:
                rows = connection.execute(ROWS, (0 if thorough else number - 1,)).fetchall()
        except Damaged:
            return None
        at = number - 1 if thorough else 0  # the place of the last known row
        if rows[at : at + 1] != [last]:
            return None
        new = rows[at + 1 :]
        if break_in(rows) if thorough else break_in(new, after=number, digest=digest):
            return None
        return new if tail is None or tail.id <= rows[-1][0] else None

    def _is_legacy(self) -> bool:
        """Return whether the journal is of an earlier version, which has no digests."""
        with reading(self._folder / names.JOURNAL_FILE) as connection:
            return not has_digests(connection, names.EVENTS_TABLE)


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except FileNotFoundError:
        return "0"
    if not status.st_size:  # an empty write-ahead log comes and goes with readers
        return "0"
    return f"{status.st_ino:x}.{status.st_mtime_ns:x}.{status.st_size:x}"
