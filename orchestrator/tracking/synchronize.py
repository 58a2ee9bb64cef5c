"""``metaloom sync``: send MLflow the events that it missed while a search ran."""

from pathlib import Path

from metaloom.orchestrator.journal import Journal, writer_lock
from metaloom.orchestrator.store import Store
from metaloom.orchestrator.tracking.outbox import Backlog, Warn
from metaloom.orchestrator.tracking.projection import start_projections
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event
from metaloom.workers.records.names import INTERRUPTED
from metaloom.workers.records.search import SearchRecord

PATIENCE_S = 3600.0


def synchronize(store: Path, name: str, *, warn: Warn, timeout_s: float = PATIENCE_S) -> list[Backlog]:
    """Bring MLflow up to date with search ``name``; return the backlogs.

    If the search's driver was killed, journal the search's end first, so that no MLflow run stays RUNNING.

    Raises:
        SearchError: There is no such search, or it is running (it then sends its records itself).
    """
    folder = Store(store).existing_folder(name)
    with writer_lock(folder):
        journal = Journal(folder)
        try:
            tracking = _end_if_killed(journal)
        finally:
            journal.close()
        return start_projections(folder, store=store, tracking=tracking, warn=warn).close(timeout_s)


def _end_if_killed(journal: Journal) -> dict[str, str]:
    """Journal the end of a session that was cut off; return the search's tracking section."""
    events = journal.events()
    state = SearchRecord.replay(events)
    if state.state == records.RUNNING:
        # At the time of the last event: the time since then does not count in the search's budget.
        moment = events[-1].time
        cut_off = [
            Event(
                0, moment, trial.number, records.TRIAL_INTERRUPTED, {"reason": "the search was killed", "lost": False}
            )
            for trial in state.in_state(records.RUNNING)
        ]
        ended = {"state": INTERRUPTED, "reason": "the search was killed"}
        journal.append_all([*cut_off, Event(0, moment, None, records.SEARCH_ENDED, ended)])
    return dict((state.created.get("experiment") or {}).get("tracking") or {})
