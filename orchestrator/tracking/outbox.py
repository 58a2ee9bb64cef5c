"""The outbox: a thread that carries the journal into another system and never holds up the search.

The search appends to the journal and goes on. Behind it each projection (MLflow,
Optuna's database) follows at its own pace: read the events after its mark, apply
them, move the mark. A server that is away costs one line of warning; the events
wait in the journal, and are carried over when it answers again, or by
``metaloom sync``. ``apply`` is idempotent, so a kill between applying and moving
the mark repeats events without doubling anything.
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
    """A projection that is made by the outbox's thread, with its first events: making it may wait or fail.

    Args:
        name: The projection's name, which its mark has.
        make: Makes it; tried again with the next events if it raises.
    """

    def __init__(self, name: str, make: Callable[[], Projection]) -> None:
        self.name = name
        self._make = make
        self._made: Projection | None = None

    def apply(self, events: Sequence[Event]) -> None:
        """Make the projection if that is still to be done, and apply ``events``."""
        if self._made is None:
            self._made = self._make()
        self._made.apply(events)


@dataclass(frozen=True)
class Backlog:
    """What a projection has not been able to deliver.

    Attributes:
        name: The projection.
        events: How many events wait in the journal.
        reason: Why, in one line; empty if it is only slow.
    """

    name: str
    events: int
    reason: str


class Outbox:
    """Carries one projection. Start it, let the search run, close it.

    Args:
        folder: Folder of the search.
        projection: What the events are applied to; it is used by the outbox's thread only.
        warn: Told once per outage, in one line.
        state: What to remember beside the mark.
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
        """Begin to follow the journal, in a thread that does not keep the process alive."""
        self._thread.start()
        return self

    def hurry(self) -> None:
        """Deliver what is left without waiting for more; returns at once."""
        self._closing.set()

    def close(self, timeout_s: float) -> Backlog:
        """Deliver what is left, for at most ``timeout_s``, and stop following."""
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
            except Exception as error:  # whatever goes wrong in the other system is no business of the search
                self._report(error)
            if closing:  # this was the last try
                return
            self._closing.wait(backoff_s)
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    def _follow(self) -> None:
        """Apply batch after batch; return once closing and nothing is left. Raises what ``apply`` raises."""
        journal = Journal(self._folder)  # an own connection: the search may close its own at any time
        try:
            mark = journal.mark(self.projection.name)
            while True:
                closing = self._closing.is_set()  # before reading: what is appended first must be read
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
            kept = "Its records are kept, and sent" if self._closing.is_set() else kept  # it is over, or synchronized
            self._warn(f"{name} cannot be written: {self._trouble}. {kept} by '{command('sync', self._folder)}'")


def first_line(error: Exception) -> str:
    """Return the first line of an error that says what went wrong; SQLAlchemy begins with when it was noticed."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("(raised as a result of")]
    return (lines or [type(error).__name__])[0][:300]


class Outboxes:
    """The outboxes of one search, closed together."""

    def __init__(self, outboxes: Sequence[Outbox]) -> None:
        self._outboxes = outboxes

    def close(self, timeout_s: float = 60.0) -> list[Backlog]:
        """Deliver what is left within ``timeout_s`` in all; return what could not be delivered."""
        deadline = time.monotonic() + timeout_s
        for outbox in self._outboxes:
            outbox.hurry()  # all at once: they drain side by side
        backlogs = [outbox.close(max(0.0, deadline - time.monotonic())) for outbox in self._outboxes]
        return [backlog for backlog in backlogs if backlog.events]
