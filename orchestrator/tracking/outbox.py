"""The outbox: a thread that copies the journal to another system without delaying the search.

Each projection (MLflow, Optuna's database) follows the journal at its own pace: it reads the events after its mark,
applies them and moves the mark. If a server is unreachable, the outbox warns once; the events wait in the journal
until the server answers again or ``metaloom sync`` sends them.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from metaloom.learners.redaction import redacted
from metaloom.orchestrator.journal import Journal, Mark
from metaloom.orchestrator.store import command
from metaloom.workers.records.journal import Event

POLL_S = 1.0  # MLflow costs 5 ms a batch however small: a second of events makes one
BATCH_EVENTS = 500
FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 30.0

Warn = Callable[[str], None]


class Projection(Protocol):
    """Copies the journal to another system (MLflow, Optuna's database).

    ``apply`` must be idempotent, because after a kill it receives applied events again.
    """

    @property
    def state(self) -> str:
        """A text that is stored with the mark."""
        ...

    def apply(self, events: Sequence[Event]) -> None:
        """Apply consecutive ``events`` of the journal to the other system."""
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


class Outbox:
    """Feeds one projection in a daemon thread, which starts at once; close it after the search.

    Args:
        name: Of the projection and its mark.
        make: Makes the projection, in the thread with its first events, because that may wait or fail; called again
            with the next events if it raises.
        warn: Receives one line per outage.
    """

    def __init__(self, folder: Path, name: str, make: Callable[[], Projection], *, warn: Warn) -> None:
        self._folder, self._name, self._make, self._warn = folder, name, make, warn
        self._projection: Projection | None = None
        self._closing = threading.Event()
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name=f"outbox-{name}", daemon=True)
        self._thread.start()

    def hurry(self) -> None:
        """Request delivery of the rest without waiting for more events; returns immediately."""
        self._closing.set()

    def close(self, timeout_s: float) -> Backlog:
        """Deliver the rest for at most ``timeout_s``, and stop."""
        self.hurry()
        self._thread.join(timeout_s)
        with Journal(self._folder, read_only=True) as journal:
            waiting = len(journal.events(journal.mark(self._name).event))
        return Backlog(self._name, waiting, self._trouble)

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
        with Journal(self._folder) as journal:  # its own connection: the search may close the other at any time
            mark = journal.mark(self._name)
            while True:
                closing = self._closing.is_set()  # before reading, so that earlier events are read
                events = journal.events(mark.event, BATCH_EVENTS)
                if events:
                    self._projection = self._projection or self._make()
                    self._projection.apply(events)
                    mark = Mark(events[-1].id, self._projection.state)
                    journal.set_mark(self._name, mark)
                    self._trouble = ""
                elif closing:
                    return
                if len(events) < BATCH_EVENTS:
                    self._closing.wait(POLL_S)

    def _report(self, error: Exception) -> None:
        first_of_outage, self._trouble = not self._trouble, first_line(error)
        if first_of_outage:
            kept = f"The search goes on; its records are kept, and sent when {self._name} is back or"
            kept = "Its records are kept, and sent" if self._closing.is_set() else kept  # the search has ended
            again = f"by '{command('sync', self._folder)}'"
            self._warn(f"{self._name} cannot be written: {self._trouble}. {kept} {again}")


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, without SQLAlchemy's line about the autoflush."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("(raised as a result of")]
    return redacted((lines or [type(error).__name__])[0])[:300]


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
