"""How a search is followed while it runs."""

from typing import Protocol

from metaloom.workers.records.journal import Event
from metaloom.workers.records.search import SearchRecord


class SearchProgress(Protocol):
    """Told of every event once it is in the journal."""

    def update(self, event: Event, state: SearchRecord) -> None:
        """Show what has happened; ``state`` has the event in it."""
        ...
