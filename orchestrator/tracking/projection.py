"""MLflow as a projection of the journal.

Runs are looked up by their tags before they are made, and metrics carry the times of their events, so events that are
applied twice (after a kill) leave the same runs. If MLflow has lost its records (a deleted database, another server),
the runs are rebuilt from the first event.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaloom.orchestrator.journal import Journal, Projection
from metaloom.orchestrator.tracking import client
from metaloom.orchestrator.tracking.outbox import Outbox, Outboxes, Warn
from metaloom.orchestrator.tracking.writing import SEARCH_ID_TAG, TRIAL_TAG, RunWriter, TrackingState
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event

if TYPE_CHECKING:
    from metaloom.orchestrator.tracking.runs import Runs


class MlflowProjection:
    """Feeds MLflow from one thread; the first event imports MLflow.

    Args:
        folder: Folder of the search, for its journal and artifacts.
        store: The store, whose own database is used if the tracking section names no ``uri``.
        tracking: The experiment's tracking section.
        warn: Receives a line for each event that MLflow refuses.
    """

    name = records.MLFLOW_MARK

    def __init__(self, folder: Path, *, store: Path, tracking: Mapping[str, Any], warn: Warn) -> None:
        self._folder = folder
        self._store = store
        self._warn = warn
        self._uri = client.tracking_uri(store, tracking.get("uri"))
        self._experiment = str(tracking.get("experiment") or folder.name)
        self._artifacts: str | None = tracking.get("artifacts")
        self._episodes = tracking.get("episodes") is not False
        self._connection: tuple[Runs, RunWriter] | None = None
        self._state = TrackingState()

    def state(self) -> str:
        """Return the run ids and the steps sent, as JSON, for the mark."""
        return json.dumps(asdict(self._state))

    def apply(self, events: Sequence[Event]) -> None:
        """Bring MLflow up to date; raises MLflow's errors if it cannot be reached."""
        # After an error the next call connects again, and finds the runs by their tags.
        connection, self._connection = self._connection, None
        if connection is None:
            runs, writer, earlier = self._connected(events[0].id)
            events = [*earlier, *events]
        else:
            runs, writer = connection
        for event in events:
            self._write(runs, writer, event)
        runs.flush()
        self._connection = runs, writer

    def _connected(self, first: int) -> "tuple[Runs, RunWriter, list[Event]]":
        """Connect; return also the events before ``first`` if MLflow lacks them."""
        client.quieten()
        from metaloom.orchestrator.tracking.runs import Runs, connect  # mlflow: 2 s, in the outbox's thread

        journal = Journal(self._folder, read_only=True)
        try:
            created = journal.events(0, 1)[0]
            search_id = hashlib.sha256(f"{self._folder.name} {created.time!r}".encode()).hexdigest()[:16]
            connection, experiment = connect(self._store, self._uri, self._experiment, self._artifacts)
            runs = Runs(connection, experiment)
            run_tags = runs.find(SEARCH_ID_TAG, search_id)
            trials = {tags[TRIAL_TAG]: run for run, tags in run_tags.items() if TRIAL_TAG in tags}
            parent = next((run for run, tags in run_tags.items() if TRIAL_TAG not in tags), "")
            sent = TrackingState(**json.loads(journal.mark(self.name).state or "{}"))
            self._state = TrackingState(client.shown(self._uri), experiment, parent, trials)
            is_whole = sent.parent_run_id == parent and set(sent.runs.values()) <= set(trials.values())
            if is_whole:
                self._state.steps, self._state.running = sent.steps, sent.running
            writer = RunWriter(
                self._folder,
                store=self._store,
                warn=self._warn,
                search_id=search_id,
                created_at=created.time,
                episodes=self._episodes,
                state=self._state,
            )
            return runs, writer, [] if is_whole or first == 1 else journal.events(0, first - 1)
        finally:
            journal.close()

    def _write(self, runs: "Runs", writer: RunWriter, event: Event) -> None:
        """Write one event; if MLflow refuses it, warn and leave it out."""
        try:
            writer.write(runs, event)
        except Exception as error:
            if not client.is_refusal(error):
                raise
            self._warn(f"mlflow refused event {event.id} ({event.kind}) of '{self._folder.name}': {error}")


def start_projections(
    folder: Path, *, store: Path, tracking: Mapping[str, Any], warn: Warn, others: Sequence[Projection] = ()
) -> Outboxes:
    """Start to copy the journal of the search in ``folder`` to MLflow and to ``others``, each in its own thread.

    Call ``close(timeout_s)`` on the result after the search's last event; it returns the backlogs, which a later
    start delivers.

    Args:
        folder: Folder of the search, with its journal.
        store: The store folder.
        tracking: The experiment's tracking section (``uri``: None for the store's own database).
        warn: Receives one line per outage.
        others: More projections, such as Optuna's (``Deferred``).
    """
    mlflow = MlflowProjection(folder, store=store, tracking=tracking, warn=warn)
    outboxes = [Outbox(folder, mlflow, warn=warn, state=mlflow.state)]
    outboxes += [Outbox(folder, other, warn=warn) for other in others]
    return Outboxes([outbox.start() for outbox in outboxes])
