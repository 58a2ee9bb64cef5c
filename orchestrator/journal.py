"""The journal of a search: an append-only SQLite database that holds every decision and result.

It is the only source of truth: the state of Ray Tune, Optuna and MLflow is rebuilt from it. SQLite in WAL mode with
``synchronous=FULL`` loses no acknowledged event to ``kill -9``, a full disk or a power cut. A lock allows one writer
per search; any number of processes may read.
"""

import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import filelock

from metaloom.learners.redaction import redacted
from metaloom.orchestrator.errors import SearchError, StoreError
from metaloom.orchestrator.store import explained
from metaloom.workers.records.journal import Event, payload_of
from metaloom.workers.records.names import EVENTS_TABLE, JOURNAL_FILE, MARKS_TABLE

SCHEMA = f"""
PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
CREATE TABLE IF NOT EXISTS {EVENTS_TABLE} (
    id INTEGER PRIMARY KEY, time REAL NOT NULL, trial INTEGER, kind TEXT NOT NULL, payload TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS {MARKS_TABLE} (name TEXT PRIMARY KEY, event INTEGER NOT NULL, state TEXT NOT NULL);
"""
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


class Journal:
    """The journal of one search, open for reading, and for appending unless ``read_only`` (it must then exist).

    Any thread may use it. Append only while holding ``writer_lock``. Leaving it as a context closes it.

    Raises:
        StoreError: It cannot be opened or written.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.folder, self.path, self._lock = folder, folder / JOURNAL_FILE, threading.RLock()
        with self._explained():
            self._connection = sqlite3.connect(
                f"{self.path.as_uri()}?mode={'ro' if read_only else 'rwc'}",
                uri=True,
                timeout=BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,  # the lock lets one thread use it at a time
            )
            if not read_only:
                self._connection.executescript(SCHEMA)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def append(self, kind: str, payload: dict[str, Any] | None = None, *, trial: int | None = None) -> Event:
        """Append one event and return it once it is on disk."""
        return self.append_all([Event(0, time.time(), trial, kind, payload or {})])[0]

    def append_all(self, events: Sequence[Event]) -> list[Event]:
        """Append all events in one transaction and return them with ids; raises StoreError with nothing appended."""
        query, stored = f"INSERT INTO {EVENTS_TABLE} (time, trial, kind, payload) VALUES (?, ?, ?, ?)", []
        with self._explained(), self._transaction() as connection:
            for event in events:
                payload = redacted(json.dumps(event.payload))
                cursor = connection.execute(query, (event.time, event.trial, event.kind, payload))
                # Return what a replay will read: JSON has no tuples and no integer keys.
                stored.append(replace(event, id=int(cursor.lastrowid or 0), payload=json.loads(payload)))
        return stored

    def events(self, after: int = 0, limit: int = -1) -> list[Event]:
        """Return the events whose id exceeds ``after``, oldest first, at most ``limit`` of them."""
        query = f"SELECT id, time, trial, kind, payload FROM {EVENTS_TABLE} WHERE id > ? ORDER BY id LIMIT ?"
        with self._explained():
            rows = self._connection.execute(query, (after, limit)).fetchall()
        return [Event(row[0], row[1], row[2], row[3], payload_of(row[4])) for row in rows]

    def mark(self, name: str) -> Mark:
        """Return the mark of the projection ``name``."""
        query = f"SELECT event, state FROM {MARKS_TABLE} WHERE name = ?"
        with self._explained():
            return Mark(*(self._connection.execute(query, (name,)).fetchone() or ()))

    def set_mark(self, name: str, mark: Mark) -> None:
        """Store the mark of the projection ``name``."""
        with self._explained(), self._transaction() as connection:
            connection.execute(
                f"INSERT INTO {MARKS_TABLE} (name, event, state) VALUES (?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET event = excluded.event, state = excluded.state",
                (name, mark.event, mark.state),
            )

    def close(self) -> None:
        """Close the connection; no thread may use the journal afterwards."""
        self._connection.close()

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
        except sqlite3.Error as error:
            text = str(error)
            if "full" in text or "disk I/O" in text:
                problem = f"the disk of {self.folder} is full ({text}): free some space"
            elif "readonly" in text or "unable to open" in text:
                problem = f"cannot write to {self.path}: {text}; choose another folder with --store"
            else:
                problem = f"the journal {self.path} cannot be used: {text}"
            raise StoreError(problem) from error


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
            (folder / OWNER_FILE).write_text(json.dumps(process))
        yield
    finally:
        (folder / OWNER_FILE).unlink(missing_ok=True)
        lock.release()


def _owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / OWNER_FILE).read_text())
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"
