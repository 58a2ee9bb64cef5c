"""The interface for following a search while it runs."""

from typing import Protocol

from metaloom.workers.records.journal import Event
from metaloom.workers.records.search import SearchRecord


class SearchProgress(Protocol):
    """Receives every event after it is in the journal."""

    def update(self, event: Event, state: SearchRecord) -> None:
        """Show the event; ``state`` includes it."""
        ...
