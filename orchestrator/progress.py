"""How a search is followed while it runs."""

from typing import Protocol

from metaloom.orchestrator.journal import Event
from metaloom.orchestrator.state import SearchState


class SearchProgress(Protocol):
    """Told of every event once it is in the journal."""

    def update(self, event: Event, state: SearchState) -> None:
        """Show what has happened; ``state`` has the event in it."""
        ...
