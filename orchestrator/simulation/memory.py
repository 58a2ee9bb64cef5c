"""The journal of a simulated search, which is kept in memory, and its clock."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metaloom.workers.records.journal import Event


class MemoryLog:
    """Keeps the events of one search; see ``EventLog``.

    Args:
        name: Of the search.

    Attributes:
        folder: Bears the search's name; there is no such folder, and nothing is written.
    """

    def __init__(self, name: str) -> None:
        self.folder = self.path = Path("simulated") / name
        self._events: list[Event] = []

    def events(self, after: int = 0, limit: int = -1) -> list[Event]:
        """Return the events whose id exceeds ``after``, oldest first, at most ``limit`` of them."""
        return self._events[after : None if limit < 0 else after + limit]

    def append_all(self, events: Sequence[Event]) -> list[Event]:
        """Append all events and return them with ids; payloads as JSON gives them back."""
        first = len(self._events) + 1
        kept = [
            replace(event, id=first + place, payload=json.loads(json.dumps(event.payload)))
            for place, event in enumerate(events)
        ]
        self._events += kept
        return kept

    def append(self, kind: str, payload: dict[str, Any]) -> None:
        """Append one event of the search, at the time 0."""
        self.append_all([Event(0, 0.0, None, kind, payload)])


class SimulatedClock:
    """Says what time it is in a simulated search; it is set from one event to the next.

    Attributes:
        now_s: Seconds since the search began.
    """

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s
