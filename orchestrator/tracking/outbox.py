"""The outbox: a thread that copies the journal to another system without delaying the search.

Each projection (MLflow, Optuna's database) follows the journal at its own pace: it reads the events after its mark,
applies them and moves the mark. If a server is unreachable, the outbox warns once; the events wait in the journal
until the server answers again or ``metaloom sync`` sends them.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

import filelock

from metaloom.learners.redaction import redacted
from metaloom.orchestrator.journal import Journal, Mark
from metaloom.orchestrator.store import command
from metaloom.orchestrator.tracking.databases import NO_IDENTITY, OwnDatabase
from metaloom.workers.records.journal import Event

POLL_S = 1.0  # MLflow costs 10 ms a run however small the batch: a second of events makes one
BATCH_EVENTS = 500
FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 30.0
SERVER_SILENCE_S = 4.0
DATABASE_SILENCE_S = 60.0  # other processes may hold a file's lock for long
SILENT, TAKEN = "it does not answer", "another process sends them"

Warn = Callable[[str], None]
_IMPORTS = threading.Lock()


class Pulse:
    """Says whether the other system still answers; a projection wraps each of its calls in ``waiting``.

    Args:
        silence_s: A call that takes longer counts as hanging, once the search has ended.
    """

    def __init__(self, silence_s: float) -> None:
        self._silence_s, self._since = silence_s, time.monotonic()
        self._waits = self._failed = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Call the other system within this context."""
        if not self._failed:  # a failed call is no answer: the next one continues its silence
            self._since = time.monotonic()
        self._waits, self._failed = True, True
        try:
            yield
            self._failed = False
        finally:
            self._waits = False

    def is_silent(self, since: float) -> bool:
        """Return whether a call hangs, counted from ``since`` at the earliest, a time of ``time.monotonic``."""
        return self._waits and time.monotonic() - max(since, self._since) > self._silence_s


class Projection(Protocol):
    """Copies the journal to another system (MLflow, Optuna's database).

    Attributes:
        pulse: Whether that system answers.
        database: That system, if it is one of the store's own databases.
        state: A text that is stored with the mark.
    """

    pulse: Pulse

    @property
    def database(self) -> OwnDatabase | None: ...

    @property
    def state(self) -> str: ...

    def connect(self, journal: Journal, *, thorough: bool) -> Sequence[Event]:
        """Connect, also again after an error; return the events up to the mark that have to be applied again.

        Args:
            thorough: Compare everything that the other system should have with what it has.
        """
        ...

    def apply(self, events: Sequence[Event]) -> None:
        """Apply consecutive ``events`` to the other system; those applied before a kill may come again."""
        ...

    def of_search(self, folder: Path) -> "Projection":
        """Return the same projection of another search of the store."""
        ...


@dataclass(frozen=True)
class Backlog:
    """Events that a projection has not delivered.

    Attributes:
        events: The number of events that wait in the journal.
        reason: Why, in one line; empty if the projection is only slow.
    """

    name: str
    events: int
    reason: str

    def told(self, folder: Path) -> str:
        """Say it in one line, with what to do about it."""
        send = f"'{command('sync', folder)}'"
        if self.reason == SILENT:
            return f"{self.name} does not answer; {self.events} events wait; send them with {send}"
        return f"{self.events} events have not reached {self.name} yet; {send} sends them"


class Outbox:
    """Feeds one projection in a daemon thread, which starts at once; close it after the search.

    Args:
        name: Of the projection and its mark.
        make: Makes the projection, in the thread.
        warn: Receives one line per outage, and one if a database was made again.
        thorough: Connect without waiting for events, and send whatever the other system lacks.
        connected: Called in the thread after each connection.

    Attributes:
        projection: None before the thread has made it.
        rebuilt: What was done about a missing or damaged database, in one line each.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        make: Callable[[], Projection],
        *,
        warn: Warn,
        thorough: bool = False,
        connected: Callable[["Outbox"], None] = lambda outbox: None,
    ) -> None:
        self.folder, self.name = folder, name
        self.projection: Projection | None = None
        self.rebuilt: list[str] = []
        self._make, self._warn, self._thorough, self._on_connection = make, warn, thorough, connected
        self._connected, self._identity = False, NO_IDENTITY
        self._closing = threading.Event()
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name=f"outbox-{name}", daemon=True)
        self._thread.start()

    def hurry(self) -> None:
        """Request delivery of the rest without waiting for more events; returns immediately."""
        self._closing.set()

    def is_delivering(self, since: float) -> bool:
        """Return whether the thread still works; false if the other system hangs since the time ``since`` or later."""
        if self._thread.is_alive() and self.projection is not None and self.projection.pulse.is_silent(since):
            self._trouble = SILENT
            return False
        return self._thread.is_alive()

    def backlog(self) -> Backlog:
        """Return what is not delivered."""
        return Backlog(self.name, waiting(self.folder, self.name), self._trouble)

    @property
    def is_uncompared(self) -> bool:
        """Whether it was to compare what the other system has, and could not."""
        return self._thorough and not self._connected

    def _run(self) -> None:
        _import_shared()
        backoff_s = FIRST_BACKOFF_S
        while True:
            closing = self._closing.is_set()
            try:
                with self._alone(), Journal(self.folder) as journal:  # the search may close its connection at any time
                    self._follow(journal)
                return
            except Exception as error:  # an error of the other system must not end the search
                self._connected = False
                self._report(error)
            if closing:  # that was the last try
                return
            self._closing.wait(backoff_s)
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock of this projection of the search, which another process may be sending to a new database."""
        lock = filelock.FileLock(self.folder / f"{self.name}.lock")
        while True:
            closing = self._closing.is_set()
            try:
                lock.acquire(timeout=0.0)
                break
            except filelock.Timeout:
                if closing:
                    self._trouble = TAKEN
                    raise
            self._closing.wait(POLL_S)
        try:
            yield
        finally:
            lock.release()

    def _follow(self, journal: Journal) -> None:
        """Apply batch after batch; return when closing and nothing is left. Raises the errors of ``apply``."""
        mark = journal.mark(self.name)
        while True:
            closing = self._closing.is_set()  # before reading, so that earlier events are read
            events = journal.events(mark.event, BATCH_EVENTS)
            if ((events or self._thorough) and not self._connected) or self._is_replaced():
                self._connect(journal)
            if events:
                assert self.projection is not None
                self.projection.apply(events)
                mark = Mark(events[-1].id, self.projection.state)
                journal.set_mark(self.name, mark)
                self._trouble = ""
            elif closing:
                return
            if len(events) < BATCH_EVENTS:
                self._closing.wait(POLL_S)

    def _connect(self, journal: Journal) -> None:
        """Connect, and apply what the other system has lost."""
        self._connected = False
        self.projection = self.projection or self._make()
        database, told = self.projection.database, ""
        if database is not None and (told := database.prepare()):
            self.rebuilt.append(told)
            self._warn(told)
        self._identity = NO_IDENTITY if database is None else database.identity
        is_new = database is not None and self.folder.name in database.pending()
        lost = self.projection.connect(journal, thorough=self._thorough or is_new)
        for first in range(0, len(lost), BATCH_EVENTS):
            self.projection.apply(lost[first : first + BATCH_EVENTS])
        mark = journal.mark(self.name)
        if lost or (mark.event and mark.state != self.projection.state):  # as in a store that was moved
            journal.set_mark(self.name, Mark(mark.event, self.projection.state))
        if database is not None:
            database.sent(self.folder.name)
        self._connected, self._trouble = True, ""
        self._on_connection(self)

    def _is_replaced(self) -> bool:
        """Return whether another process has made the database again since it was opened."""
        if self.projection is None or self.projection.database is None or not self._connected:
            return False
        return self.projection.database.identity != self._identity

    def _report(self, error: Exception) -> None:
        if self._trouble == TAKEN:
            return
        first_of_outage, self._trouble = not self._trouble, first_line(error)
        if first_of_outage:
            kept = f"The search goes on; its records are kept, and sent when {self.name} is back or"
            kept = "Its records are kept, and sent" if self._closing.is_set() else kept  # the search has ended
            again = f"by '{command('sync', self.folder)}'"
            self._warn(f"{self.name} cannot be written: {self._trouble}. {kept} {again}")


def _import_shared() -> None:
    """Import what MLflow and Optuna both import: two threads that do so at once see half-made modules."""
    with _IMPORTS:
        for module in ("sqlalchemy.orm", "alembic.command"):
            import_module(module)


def waiting(folder: Path, name: str) -> int:
    """Return how many events of a search the projection ``name`` has not delivered."""
    with Journal(folder, read_only=True) as journal:
        return len(journal.events(journal.mark(name).event))


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, without SQLAlchemy's line about the autoflush."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("(raised as a result of")]
    return redacted((lines or [type(error).__name__])[0])[:300]
