"""The copies of a journal from which damage to its database is mended: a log of its rows, and two backups.

The log gets each row after the database has it, without waiting for the disk: it may lack the last rows after a power
failure, and a later opening adds them. The backups are made by SQLite's own means, in at most 1% of the time.
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from metaloom.workers import durable
from metaloom.workers.errors import StorageError
from metaloom.workers.records.journal import Row
from metaloom.workers.records.journal_sources import log_tail
from metaloom.workers.records.names import EVENTS_TABLE, JOURNAL_BACKUPS, JOURNAL_LOG

BACKUP_SHARE = 0.01  # of the time; beside it, one backup at a search's start and one at a session's end
DAMAGED = "damaged"
logger = logging.getLogger("metaloom")


class Copies:
    """Writes the copies of the journal in ``folder``. A copy that cannot be written costs a warning, not the search."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._log = folder, folder / JOURNAL_LOG
        self._began, self._spent_s, self._last_s = time.monotonic(), 0.0, 0.0
        self._end: int | None = None  # of the log's last row in its file; None before the log was looked at
        self._behind = self._warned = False

    def add(self, rows: Sequence[Row], connection: sqlite3.Connection) -> None:
        """Append rows that the database of ``connection`` has just committed, and back it up if it is time."""
        self._behind = True
        with self._told(self._log):
            if self._end is None:
                rows = self._missing(connection)
            self._write(rows)
        if not (self._folder / JOURNAL_BACKUPS[0]).exists() or self._is_due():
            self._back_up(connection)

    def close(self, connection: sqlite3.Connection) -> None:
        """Back the database up if it has rows that the last backup lacks."""
        if self._behind:
            self._back_up(connection)

    def _write(self, rows: Sequence[Row]) -> None:
        """Write rows behind the log's last whole line; raises OSError, after which the log is looked at again."""
        end, self._end = self._end or 0, None
        content = "".join(row.line for row in rows).encode()
        self._log.touch(0o600)
        with self._log.open("r+b") as file:
            file.truncate(end)  # what a killed process or a full disk has left of a line
            file.seek(end)
            file.write(content)
        self._end = end + len(content)

    def _missing(self, connection: sqlite3.Connection) -> list[Row]:
        """Find the log's end, and return the rows that it lacks; a log of other rows is set aside."""
        tail = log_tail(self._log)
        query = f"SELECT id, time, trial, kind, payload, digest FROM {EVENTS_TABLE} WHERE id > ? ORDER BY id"
        if tail is not None:
            held = connection.execute(f"SELECT digest FROM {EVENTS_TABLE} WHERE id = ?", (tail.id,)).fetchone()
            if held == (tail.digest,):
                self._end = tail.end
                return [Row(*values) for values in connection.execute(query, (tail.id,))]
        if self._log.exists() and self._log.stat().st_size:
            set_aside([self._log])
        self._end = 0
        return [Row(*values) for values in connection.execute(query, (0,))]

    def _is_due(self) -> bool:
        return self._spent_s + self._last_s <= BACKUP_SHARE * (time.monotonic() - self._began)

    def _back_up(self, connection: sqlite3.Connection) -> None:
        started = time.monotonic()
        with self._told(self._folder / JOURNAL_BACKUPS[0]):
            write_backup(self._folder, connection)
            self._behind = False
        self._last_s = time.monotonic() - started
        self._spent_s += self._last_s

    @contextlib.contextmanager
    def _told(self, path: Path) -> Iterator[None]:
        """Turn an error into a warning, once: the journal itself holds everything."""
        try:
            yield
        except (OSError, StorageError, sqlite3.Error) as error:
            if not self._warned:
                logger.warning("%s, a copy of the journal, cannot be written: %s", path, error)
            self._warned = True


def write_backup(folder: Path, connection: sqlite3.Connection) -> None:
    """Write the database of ``connection`` as the newest backup; the newest so far becomes the older one.

    At every moment at least one of the two is whole.

    Raises:
        StorageError: It cannot be written.
        sqlite3.Error: Likewise, or the database cannot be read.
    """
    newest, older = (folder / name for name in JOURNAL_BACKUPS)
    for left in folder.glob(f"{durable.ASIDE}*{newest.name}*"):  # by a killed process
        left.unlink(missing_ok=True)
    with durable.written_aside(newest) as aside:
        aside.touch(0o600)
        with contextlib.closing(sqlite3.connect(aside)) as target:
            target.execute("PRAGMA synchronous=OFF")  # it is synced as a whole
            connection.backup(target)
        if newest.exists():
            newest.replace(older)


def set_aside(paths: Sequence[Path]) -> list[Path]:
    """Rename damaged files, those that exist, to the first free ``NAME.damaged-N``; return the new paths."""
    number = 1
    while any(path.with_name(f"{path.name}.{DAMAGED}-{number}").exists() for path in paths):
        number += 1
    moved = []
    for path in paths:
        if path.exists():
            path.chmod(0o600)
            moved.append(path.replace(path.with_name(f"{path.name}.{DAMAGED}-{number}")))
    if moved:
        durable.sync(moved[0].parent)
    return moved
