"""The journal of a search: an append-only SQLite database that holds every decision and result.

It is the only source of truth: the state of Ray Tune, Optuna and MLflow is rebuilt from it. SQLite in WAL mode with
``synchronous=FULL`` loses no acknowledged event to ``kill -9``, a full disk or a power cut. Each event has a checksum
that is chained to the one before; reading verifies it. A lock allows one writer per search; any number of processes may
read.
"""

import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import filelock

from metaloom.learners.redaction import redacted
from metaloom.orchestrator.copies import Copies
from metaloom.orchestrator.errors import SearchError, StoreError
from metaloom.orchestrator.store import command, explained
from metaloom.workers import durable
from metaloom.workers.records.journal import (
    DIGEST,
    GOES_ON,
    Damaged,
    Event,
    Row,
    break_in,
    chained,
    event_of,
    give_digests,
    has_digests,
    mark_digest,
    read_database,
    select_mark,
)
from metaloom.workers.records.names import EVENTS_TABLE, JOURNAL_FILE, MARKS_TABLE

SCHEMA = f"""
PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
CREATE TABLE IF NOT EXISTS {EVENTS_TABLE} (
    id INTEGER PRIMARY KEY, time REAL NOT NULL, trial INTEGER, kind TEXT NOT NULL, payload TEXT NOT NULL, digest TEXT);
CREATE TABLE IF NOT EXISTS {MARKS_TABLE} (
    name TEXT PRIMARY KEY, event INTEGER NOT NULL, state TEXT NOT NULL, digest TEXT);
"""
ROWS = f"SELECT id, time, trial, kind, payload, {DIGEST} FROM {EVENTS_TABLE}"
BUSY_TIMEOUT_S = 20.0  # another connection of this process keeps the write lock for milliseconds only
LOCK_FILE = "lock"
OWNER_FILE = "owner.json"


@dataclass(frozen=True)
class Mark:
    """A projection's position in the journal.

    Attributes:
        event: Id of the last applied event; 0 if none.
        state: A text that the projection stores.
    """

    event: int = 0
    state: str = ""


class EventLog(Protocol):
    """What the Director asks of a journal: that of a search on disk, or of a simulated one in memory."""

    folder: Path
    path: Path

    def events(self, after: int = 0, limit: int = -1) -> list[Event]:
        """Return the events whose id exceeds ``after``, oldest first, at most ``limit`` of them."""
        ...

    def append_all(self, events: Sequence[Event]) -> list[Event]:
        """Append all events, or none, and return them with ids, as a replay reads them."""
        ...


class Journal:
    """The journal of one search, open for reading, and for appending unless ``read_only`` (it must then exist).

    Any thread may use it. Append only while holding ``writer_lock``. Leaving it as a context closes it.

    Args:
        verified: The events up to this id have been verified by the caller, and are not verified again.

    Raises:
        StoreError: It cannot be opened or written.
    """

    def __init__(self, folder: Path, *, read_only: bool = False, verified: int = 0) -> None:
        self.folder, self.path, self._lock = folder, folder / JOURNAL_FILE, threading.RLock()
        self._verified = verified
        self._copies = None if read_only else Copies(folder)
        with self._explained(), explained(folder):
            if not read_only and not self.path.exists():
                make_database(self.path)
            self._connection = sqlite3.connect(
                f"{self.path.as_uri()}?mode={'ro' if read_only else 'rw'}",
                uri=True,
                timeout=BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,  # the lock lets one thread use it at a time
            )
            if not read_only:
                self._connection.executescript(SCHEMA)
                self._add_digests()
            self._is_chained = has_digests(self._connection, EVENTS_TABLE)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def append(self, kind: str, payload: dict[str, Any] | None = None, *, trial: int | None = None) -> Event:
        """Append one event and return it once it is on disk."""
        return self.append_all([Event(0, time.time(), trial, kind, payload or {})])[0]

    def append_all(self, events: Sequence[Event]) -> list[Event]:
        """Append all events in one transaction and return them with ids; raises StoreError with nothing appended."""
        query, rows = f"INSERT INTO {EVENTS_TABLE} VALUES (?, ?, ?, ?, ?, ?)", []
        with self._explained():
            with self._transaction() as connection:
                last = connection.execute(f"SELECT id, {DIGEST} FROM {EVENTS_TABLE} ORDER BY id DESC LIMIT 1")
                number, digest = last.fetchone() or (0, "")
                for left, event in zip(range(len(events))[::-1], events, strict=True):
                    number += 1
                    payload = redacted(json.dumps(event.payload))
                    row = Row(number, float(event.time), event.trial, event.kind, payload)
                    digest = chained(digest, row) + (GOES_ON if left else "")
                    rows.append(row._replace(digest=digest))
                    connection.execute(query, rows[-1])
            if self._copies is not None:
                self._copies.add(rows, connection)
        return [event_of(row) for row in rows]  # what a replay will read: JSON has no tuples and no integer keys

    def events(self, after: int = 0, limit: int = -1) -> list[Event]:
        """Return the events whose id exceeds ``after``, oldest first, at most ``limit`` of them.

        Raises:
            StoreError: Their checksums do not follow that of event ``after``: the journal is damaged.
        """
        with self._explained():
            if not self._is_chained:  # of an earlier version, open for reading alone
                legacy = [row for row in read_database(self.path).rows if row[0] > after]
                return [event_of(row) for row in (legacy if limit < 0 else legacy[:limit])]
            rows = self._execute(f"{ROWS} WHERE id > ? ORDER BY id LIMIT ?", after, limit)
            start = max(after, self._verified)
            before = self._execute(f"SELECT {DIGEST} FROM {EVENTS_TABLE} WHERE id = ?", start)
            if problem := break_in(rows[start - after :], after=start, digest=before[0][0] if before else ""):
                raise Damaged(problem)
        return [event_of(row) for row in rows]

    def events_of(self, kind: str) -> list[Event]:
        """Return the events of a kind, oldest first, without verifying the chain of their checksums."""
        with self._explained():
            rows = self._connection.execute(f"{ROWS} WHERE kind = ? ORDER BY id", (kind,)).fetchall()
        return [event_of(row) for row in rows]

    def append_between(self, kind: str, payload: dict[str, Any], *, trial: int | None = None) -> Event:
        """Append an event between sessions, at the time of the last one: the time between them is not spent."""
        with self._explained():
            ((moment,),) = self._connection.execute(f"SELECT time FROM {EVENTS_TABLE} ORDER BY id DESC LIMIT 1")
        return self.append_all([Event(0, moment, trial, kind, payload)])[0]

    def mark(self, name: str) -> Mark:
        """Return the mark of the projection ``name``; that of a projection which never ran if it is damaged."""
        with self._explained():
            return Mark(*(select_mark(self._connection, name) or ()))

    def set_mark(self, name: str, mark: Mark) -> None:
        """Store the mark of the projection ``name``."""
        with self._explained(), self._transaction() as connection:
            values = (name, mark.event, mark.state, mark_digest(name, mark.event, mark.state))
            connection.execute(f"INSERT OR REPLACE INTO {MARKS_TABLE} VALUES (?, ?, ?, ?)", values)

    def close(self) -> None:
        """Close the connection; no thread may use the journal afterwards."""
        with self._lock:
            if self._copies is not None:
                self._copies.close(self._connection)
            self._connection.close()

    def _execute(self, query: str, *values: int) -> list[tuple[Any, ...]]:
        return self._connection.execute(query, values).fetchall()

    def _add_digests(self) -> None:
        """Give the events and marks of an earlier version's journal their digests, all in one transaction."""
        if has_digests(self._connection, EVENTS_TABLE):
            return
        with self._transaction() as connection:
            for table in (EVENTS_TABLE, MARKS_TABLE):
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {DIGEST} TEXT")
            rows = self._execute(f"{ROWS} ORDER BY id")
            if problem := give_digests(rows):
                raise Damaged(problem)
            digests = [(row[5], row[0]) for row in rows]
            connection.executemany(f"UPDATE {EVENTS_TABLE} SET {DIGEST} = ? WHERE id = ?", digests)
            marks = connection.execute(f"SELECT name, event, state FROM {MARKS_TABLE}").fetchall()
            digests_of_marks = [(mark_digest(*mark), mark[0]) for mark in marks]
            connection.executemany(f"UPDATE {MARKS_TABLE} SET {DIGEST} = ? WHERE name = ?", digests_of_marks)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Use the connection in this thread alone; turn SQLite's errors into a StoreError with advice."""
        try:
            with self._lock:
                yield
        except (sqlite3.Error, Damaged) as error:
            text = str(error)
            if "full" in text or "disk I/O" in text:
                problem = f"the disk of {self.folder} is full ({text}): free some space"
            elif "readonly" in text or "unable to open" in text:
                problem = f"cannot write to {self.path}: {text}; choose another folder with --store"
            else:
                mended = f"mend it with: {command('repair', self.folder)}"
                problem = f"the journal {self.path} cannot be used: {text}; if it is damaged, {mended}"
            raise StoreError(problem) from error


def make_database(path: Path, fill: Callable[[sqlite3.Connection], None] = lambda connection: None) -> None:
    """Make a journal's database with the rows that ``fill`` writes: whole, or not at all.

    Raises:
        StorageError, sqlite3.Error: It cannot be written.
    """
    for left in path.parent.glob(f"{durable.ASIDE}*-{path.name}*"):  # by a killed process
        left.unlink(missing_ok=True)
    with durable.written_aside(path) as aside:
        aside.touch(0o600)
        with closing(sqlite3.connect(aside, isolation_level=None)) as connection:
            connection.executescript(SCHEMA)
            fill(connection)


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the writer's lock of the search in ``folder``. The kernel frees it when the process dies.

    Raises:
        SearchError: Another process is running the search; its PID and host are named.
    """
    lock = filelock.FileLock(folder / LOCK_FILE, timeout=0)
    with explained(folder):
        try:
            lock.acquire()
        except filelock.Timeout:
            busy = f"search '{folder.name}' is being run by {_owner(folder)}"
            raise SearchError(f"{busy}; wait for it, or stop it first") from None
    try:
        with explained(folder):
            process = {"pid": os.getpid(), "host": socket.gethostname(), "time": time.time()}
            process["takes_signals"] = threading.current_thread() is threading.main_thread()
            (folder / OWNER_FILE).write_text(json.dumps(process))
        yield
    finally:
        (folder / OWNER_FILE).unlink(missing_ok=True)
        lock.release()


def owner(folder: Path) -> dict[str, Any]:
    """Return ``pid``, ``host`` and ``time`` of the process that has the writer's lock; empty if it is not noted."""
    try:
        return dict(json.loads((folder / OWNER_FILE).read_text()))
    except (OSError, ValueError):
        return {}


def _owner(folder: Path) -> str:
    found = owner(folder)
    return f"process {found['pid']} on {found['host']}" if found else "another process"
