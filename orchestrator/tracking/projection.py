"""MLflow as a projection of the journal.

Runs are looked up by their tags before they are made, and metrics carry the times of their events, so events that are
applied twice (after a kill) leave the same runs. If MLflow has lost its records (a deleted database, another server),
the runs are rebuilt from the first event.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from metaloom.learners.redaction import redacted
from metaloom.orchestrator import credentials
from metaloom.orchestrator.journal import Journal, writer_lock
from metaloom.orchestrator.store import Store
from metaloom.orchestrator.tracking import client
from metaloom.orchestrator.tracking.outbox import Backlog, Outbox, Outboxes, Projection, Warn, first_line
from metaloom.orchestrator.tracking.writing import SEARCH_ID_TAG, TRIAL_TAG, RunWriter, TrackingState
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event
from metaloom.workers.records.search import SearchRecord

PATIENCE_S = 3600.0


class MlflowProjection:
    """Feeds MLflow from one thread; the first event imports MLflow.

    Args:
        store: The store folder; its database is used if the tracking section names no ``uri``.
        warn: Receives a line for each event that MLflow refuses.
    """

    def __init__(self, folder: Path, *, store: Path, tracking: Mapping[str, Any], warn: Warn) -> None:
        self._folder, self._store, self._warn = folder, store, warn
        self._uri = client.tracking_uri(store, tracking.get("uri"))
        self._experiment = str(tracking.get("experiment") or folder.name)
        self._artifacts: str | None = tracking.get("artifacts")
        self._episodes = tracking.get("episodes") is not False
        self._writer: RunWriter | None = None
        self._state = TrackingState()

    @property
    def state(self) -> str:
        """The run ids and the steps sent, as JSON, for the mark."""
        return json.dumps(asdict(self._state))

    def apply(self, events: Sequence[Event]) -> None:
        """Bring MLflow up to date, without the events that it refuses; raises its errors if it cannot be reached."""
        # After an error the next call connects again, and finds the runs by their tags.
        writer, self._writer = self._writer, None
        if writer is None:
            writer, earlier = self._connected(events[0].id)
            events = [*earlier, *events]
        for event in events:
            try:
                writer.write(event)
            except Exception as error:
                if not client.is_refusal(error):
                    raise
                self._warn(
                    f"mlflow refused event {event.id} ({event.kind}) of '{self._folder.name}': {first_line(error)}"
                )
        writer.runs.flush()
        self._writer = writer

    def _connected(self, first: int) -> tuple[RunWriter, list[Event]]:
        """Connect; return also the events before ``first`` if MLflow lacks them."""
        client.quieten()
        from metaloom.orchestrator.tracking.runs import Runs, connect  # mlflow: 2 s, in the outbox's thread

        with Journal(self._folder, read_only=True) as journal:
            created = journal.events(0, 1)[0]
            search_id = hashlib.sha256(f"{self._folder.name} {created.time!r}".encode()).hexdigest()[:16]
            uri = credentials.resolved(self._store, self._uri)
            connection, experiment = connect(self._store, uri, self._experiment, self._artifacts)
            runs = Runs(connection, experiment)
            run_tags = runs.find(SEARCH_ID_TAG, search_id)
            trials = {tags[TRIAL_TAG]: run for run, tags in run_tags.items() if TRIAL_TAG in tags}
            parent = next((run for run, tags in run_tags.items() if TRIAL_TAG not in tags), "")
            sent = TrackingState(**json.loads(journal.mark(records.MLFLOW_MARK).state or "{}"))
            self._state = TrackingState(redacted(self._uri), experiment, parent, trials)
            is_whole = sent.parent_run_id == parent and set(sent.runs.values()) <= set(trials.values())
            if is_whole:
                self._state.steps, self._state.running = sent.steps, sent.running
            writer = RunWriter(
                runs,
                self._folder,
                store=self._store,
                warn=self._warn,
                search_id=search_id,
                created_at=created.time,
                episodes=self._episodes,
                state=self._state,
            )
            return writer, [] if is_whole or first == 1 else journal.events(0, first - 1)


def start_projections(
    folder: Path,
    *,
    store: Path,
    tracking: Mapping[str, Any],
    warn: Warn,
    others: Mapping[str, Callable[[], Projection]] = MappingProxyType({}),
) -> Outboxes:
    """Start to copy the journal of the search in ``folder`` to MLflow and to ``others``, each in its own thread.

    Call ``close(timeout_s)`` on the result after the search's last event; it returns the backlogs, which a later
    start delivers.

    Args:
        warn: Receives one line per outage.
        others: More projections by name, such as Optuna's, each with the function that makes it.
    """
    mlflow = functools.partial(MlflowProjection, folder, store=store, tracking=tracking, warn=warn)
    projections: dict[str, Callable[[], Projection]] = {records.MLFLOW_MARK: mlflow, **others}
    return Outboxes([Outbox(folder, name, make, warn=warn) for name, make in projections.items()])


def synchronize(store: Path, name: str, *, warn: Warn, timeout_s: float = PATIENCE_S) -> list[Backlog]:
    """Bring MLflow up to date with search ``name``; return the backlogs.

    If the search's driver was killed, journal the search's end first, so that no MLflow run stays RUNNING.

    Raises:
        SearchError: There is no such search, or it is running (it then sends its records itself).
    """
    folder = Store(store).existing_folder(name)
    with writer_lock(folder):
        if told := credentials.adopt(store, folder):
            warn(told)
        with Journal(folder) as journal:
            tracking = _end_if_killed(journal)
        credentials.resolved(store, tracking.get("uri") or "")  # what is missing is said at once
        return start_projections(folder, store=store, tracking=tracking, warn=warn).close(timeout_s)


def _end_if_killed(journal: Journal) -> dict[str, str]:
    """Journal the end of a session that was cut off; return the search's tracking section."""
    events = journal.events()
    state = SearchRecord.replay(events)
    if state.state == records.RUNNING:
        # At the time of the last event: the time since then does not count in the search's budget.
        moment, reason, running = events[-1].time, "the search was killed", state.in_state(records.RUNNING)
        cut_off = {"reason": reason, "lost": False}
        ends = [Event(0, moment, trial.number, records.TRIAL_INTERRUPTED, cut_off) for trial in running]
        ended = {"state": records.INTERRUPTED, "reason": reason}
        journal.append_all([*ends, Event(0, moment, None, records.SEARCH_ENDED, ended)])
    return dict((state.created.get("experiment") or {}).get("tracking") or {})
