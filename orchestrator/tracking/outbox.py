"""The outbox: a thread that copies the journal to another system without delaying the search.

Each projection (MLflow, Optuna's database) follows the journal at its own pace: it reads the events after its mark,
applies them and moves the mark. If a server is unreachable, the outbox warns once; the events wait in the journal
until the server answers again or ``metaloom sync`` sends them. ``apply`` is idempotent, so events that are repeated
after a kill change nothing.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from metaloom.orchestrator.journal import Journal, Mark, Projection
from metaloom.orchestrator.store import command
from metaloom.workers.records.journal import Event

POLL_S = 1.0  # MLflow costs 5 ms a batch however small: a second of events makes one
BATCH_EVENTS = 500
FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 30.0

Warn = Callable[[str], None]


class Deferred:
    """A projection that the outbox's thread makes with its first events, because making it may wait or fail.

    Args:
        name: The name of the projection and its mark.
        make: Makes it; called again with the next events if it raises.
    """

    def __init__(self, name: str, make: Callable[[], Projection]) -> None:
        self.name = name
        self._make = make
        self._made: Projection | None = None

    def apply(self, events: Sequence[Event]) -> None:
        """Make the projection if necessary, and apply ``events``."""
        if self._made is None:
            self._made = self._make()
        self._made.apply(events)


@dataclass(frozen=True)
class Backlog:
    """Events that a projection has not delivered.

    Attributes:
        name: The projection.
        events: The number of events that wait in the journal.
        reason: Why, in one line; empty if the projection is only slow.
    """

    name: str
    events: int
    reason: str


class Outbox:
    """Feeds one projection. Start it, let the search run, close it.

    Args:
        folder: Folder of the search.
        projection: Receives the events, in the outbox's thread only.
        warn: Receives one line per outage.
        state: Returns the text that is stored with the mark.
    """

    def __init__(self, folder: Path, projection: Projection, *, warn: Warn, state: Callable[[], str] = str) -> None:
        self.projection = projection
        self._folder = folder
        self._warn = warn
        self._state = state
        self._closing = threading.Event()
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name=f"outbox-{projection.name}", daemon=True)

    def start(self) -> "Outbox":
        """Follow the journal in a daemon thread."""
        self._thread.start()
        return self

    def hurry(self) -> None:
        """Request delivery of the rest without waiting for more events; returns immediately."""
        self._closing.set()

    def close(self, timeout_s: float) -> Backlog:
        """Deliver the rest for at most ``timeout_s``, and stop."""
        self.hurry()
        self._thread.join(timeout_s)
        journal = Journal(self._folder, read_only=True)
        try:
            waiting = len(journal.events(journal.mark(self.projection.name).event))
        finally:
            journal.close()
        return Backlog(self.projection.name, waiting, self._trouble)

    def _run(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while True:
            closing = self._closing.is_set()
            try:
                self._follow()
                return
            except Exception as error:  # an error of the other system must not end the search
                self._report(error)
            if closing:  # that was the last try
                return
            self._closing.wait(backoff_s)
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    def _follow(self) -> None:
        """Apply batch after batch; return when closing and nothing is left. Raises the errors of ``apply``."""
        journal = Journal(self._folder)  # its own connection: the search may close the other at any time
        try:
            mark = journal.mark(self.projection.name)
            while True:
                closing = self._closing.is_set()  # before reading, so that earlier events are read
                events = journal.events(mark.event, BATCH_EVENTS)
                if events:
                    self.projection.apply(events)
                    mark = Mark(events[-1].id, self._state())
                    journal.set_mark(self.projection.name, mark)
                    self._trouble = ""
                elif closing:
                    return
                if len(events) < BATCH_EVENTS:
                    self._closing.wait(POLL_S)
        finally:
            journal.close()

    def _report(self, error: Exception) -> None:
        first_of_outage = not self._trouble
        self._trouble = first_line(error)
        if first_of_outage:
            name = self.projection.name
            kept = f"The search goes on; its records are kept, and sent when {name} is back or"
            kept = "Its records are kept, and sent" if self._closing.is_set() else kept  # the search has ended
            self._warn(f"{name} cannot be written: {self._trouble}. {kept} by '{command('sync', self._folder)}'")


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, without SQLAlchemy's line about the autoflush."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("(raised as a result of")]
    return (lines or [type(error).__name__])[0][:300]


class Outboxes:
    """The outboxes of one search, closed together."""

    def __init__(self, outboxes: Sequence[Outbox]) -> None:
        self._outboxes = outboxes

    def close(self, timeout_s: float = 60.0) -> list[Backlog]:
        """Deliver the rest within ``timeout_s`` in all; return the backlogs."""
        deadline = time.monotonic() + timeout_s
        for outbox in self._outboxes:
            outbox.hurry()  # all first, so that they drain in parallel
        backlogs = [outbox.close(max(0.0, deadline - time.monotonic())) for outbox in self._outboxes]
        return [backlog for backlog in backlogs if backlog.events]
