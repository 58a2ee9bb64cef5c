"""MLflow as a projection of the journal.

Runs are looked up by their tags before they are made, and metrics carry the times of their events, so events that are
applied twice (after a kill) leave the same runs. If MLflow has lost its records (a deleted database, another server),
the runs are rebuilt from the first event.
"""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaloom.learners.redaction import redacted
from metaloom.orchestrator import credentials
from metaloom.orchestrator.errors import StoreError
from metaloom.orchestrator.journal import Journal
from metaloom.orchestrator.tracking import client, relocating, tables
from metaloom.orchestrator.tracking.batches import PARENT, Batches
from metaloom.orchestrator.tracking.comparing import lacking, without_files
from metaloom.orchestrator.tracking.databases import OwnDatabase
from metaloom.orchestrator.tracking.describing import HtmlReport
from metaloom.orchestrator.tracking.outbox import DATABASE_SILENCE_S, SERVER_SILENCE_S, Pulse, Warn
from metaloom.orchestrator.tracking.state import TrackingState
from metaloom.orchestrator.tracking.writing import SEARCH_ID_TAG, TRIAL_TAG, RunWriter
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event

if TYPE_CHECKING:
    from metaloom.orchestrator.tracking.runs import Runs


PLACES = ("tracking_uri", "experiment_id", "parent_run_id", "runs")  # in the state: as found, not as stored


class MlflowProjection:
    """Feeds MLflow from one thread; ``connect`` imports MLflow.

    Args:
        store: The store folder; its database is used if the tracking section names no ``uri``.
        warn: Receives a line for each part of a run that MLflow refuses.
        html: Makes the search's report as HTML, a file of its run; None: it gets none.
    """

    def __init__(
        self, folder: Path, *, store: Path, tracking: Mapping[str, Any], warn: Warn, html: HtmlReport | None = None
    ) -> None:
        self._folder, self._store, self._warn, self._html = folder, store, warn, html
        self._uri = client.tracking_uri(store, tracking.get("uri"))
        self._is_named_by_search = not tracking.get("experiment")
        self._experiment = str(tracking.get("experiment") or folder.name)
        self._artifacts: str | None = tracking.get("artifacts")
        self._episodes = tracking.get("episodes") is not False
        self._state = TrackingState()
        self._writer: RunWriter | None = None
        self._runs: Runs | None = None
        self._unreported = 0  # the event that the report is to tell of
        self.pulse = Pulse(DATABASE_SILENCE_S if self._uri.startswith("sqlite:") else SERVER_SILENCE_S)
        self.database: OwnDatabase | None = None
        if self._uri == client.tracking_uri(store, None):
            self.database = own_database(store)

    @property
    def state(self) -> str:
        """The run ids and the steps sent, as JSON, for the mark."""
        return json.dumps(asdict(self._state))

    def of_search(self, folder: Path) -> "MlflowProjection":
        """Return the same projection of another search of the store."""
        tracking = tracking_of(folder)
        return MlflowProjection(folder, store=self._store, tracking=tracking, warn=self._warn, html=self._html)

    def connect(self, journal: Journal, *, thorough: bool) -> list[Event]:
        """Connect; return the events up to the mark that MLflow lacks. Raises its errors.

        If that is ``thorough`` and the search's report does not tell of its last event, it is written again.
        """
        lost = self._connect(journal, thorough=thorough)
        last = journal.events()[-1].id if thorough and self._html else 0
        self._unreported = last if last > self._state.reported else 0
        if self._unreported and not lost and self._state.parent_run_id:
            self.apply([])
        return lost

    def _connect(self, journal: Journal, *, thorough: bool) -> list[Event]:
        client.quieten()
        from metaloom.orchestrator.private_api import forget_mlflow_connections, mlflow_points
        from metaloom.orchestrator.tracking.runs import FormerRuns, Runs, connect  # mlflow: 2 s, in the outbox's thread

        uri = self._resolved_uri()
        forget_mlflow_connections(uri)  # the file may be another one than theirs
        created, mark = journal.events(0, 1)[0], journal.mark(records.MLFLOW_MARK)
        former = [event.payload["before"] for event in journal.events_of(records.RENAMED)]
        search_id = id_of(self._folder, former, created.time)
        moved = FormerRuns((SEARCH_ID_TAG, search_id), former if self._is_named_by_search else ())
        with self.pulse.waiting():
            connection, experiment = connect(self._store, uri, self._experiment, self._artifacts, former=moved)
        runs = Runs(connection, experiment, uri=uri, pulse=self.pulse, warn=self._warn)
        found = runs.find(SEARCH_ID_TAG, search_id, key_tag=TRIAL_TAG)
        stored = json.loads(mark.state or "{}")
        sent = TrackingState(**stored)
        self._state, self._runs = TrackingState(redacted(self._uri), experiment), runs
        self._note_runs()
        is_whole = sent.parent_run_id == self._state.parent_run_id and sent.runs.items() <= self._state.runs.items()
        if is_whole:
            self._state = replace(sent, **{name: getattr(self._state, name) for name in PLACES})
        self._writer = self._writer_to(runs, search_id, created, self._state, html=self._html)
        if not mark.event or (is_whole and not thorough and "last_finish" in stored):
            return []
        events = [event for event in journal.events() if event.id <= mark.event]
        if not is_whole:
            return events
        if "last_finish" not in stored:  # an earlier version has sent them, without the columns
            self._state.forget()
            return events
        expected = Batches()
        scribe = self._writer_to(expected, search_id, created, TrackingState(), draws=False)
        for event in events:
            scribe.write(event)
        points = None if self.database is None else mlflow_points(self.database.path, experiment)
        return self._of_lost(events, lacking(expected.batches, found, points) | without_files(expected.batches, found))

    def _resolved_uri(self) -> str:
        uri = credentials.resolved(self._store, self._uri)
        if (told := credentials.unencrypted(uri)) and self._runs is None:  # once, not at each connection
            self._warn(told)
        return uri

    def _of_lost(self, events: list[Event], lost: set[str]) -> list[Event]:
        """Return the events of the ``lost`` runs, which are forgotten: what is sent again is not taken for repeated."""
        if PARENT in lost:  # its events change the trials' runs too
            self._state.forget()
            return events
        for key in lost:
            self._state.steps.pop(key, None)
        return [event for event in events if str(event.trial) in lost]

    def apply(self, events: Sequence[Event]) -> None:
        """Bring MLflow up to date, without what it refuses; raises its errors if it cannot be reached."""
        assert self._writer is not None and self._runs is not None  # connected
        for event in events:
            self._writer.write(event)
        if self._unreported:
            self._writer.attach(self._unreported, draws=True)
            self._unreported = 0  # also if that has failed, which was told
        self._runs.flush()
        self._note_runs()

    def _note_runs(self) -> None:
        assert self._runs is not None
        self._state.parent_run_id = self._runs.ids.get(PARENT, "")
        self._state.runs = {key: run for key, run in self._runs.ids.items() if key != PARENT}

    def _writer_to(
        self,
        runs: Batches,
        search_id: str,
        created: Event,
        state: TrackingState,
        *,
        draws: bool = True,
        html: HtmlReport | None = None,
    ) -> RunWriter:
        return RunWriter(
            runs,
            self._folder,
            store=self._store,
            warn=self._warn,
            search_id=search_id,
            created=created,
            is_alone=self._is_named_by_search,
            episodes=self._episodes,
            state=state,
            draws=draws,
            html=html,
        )


def own_database(store: Path) -> OwnDatabase:
    """Return a store's own MLflow database, which need not exist."""
    store = store.absolute()
    path = store / client.MLFLOW_DATABASE
    settle = functools.partial(relocating.put_right, chosen=lambda: _chosen_places(store))
    return OwnDatabase(path, tables.MLFLOW, lambda held: _searches(store, held=held), settle)


def _chosen_places(store: Path) -> list[str]:
    """Return the folders that the searches of a store have chosen for their artifacts, as MLflow has them."""
    chosen = [
        tracking_of(store / records.SEARCHES_FOLDER / name).get("artifacts") for name in _searches(store, held=False)
    ]
    return [client.artifact_place(place) for place in chosen if place]


def id_of(folder: Path, former_names: Sequence[str], created_at: float) -> str:
    """Return what tells a search's runs from those of others; a new name does not change it."""
    return hashlib.sha256(f"{[*former_names, folder.name][0]} {created_at!r}".encode()).hexdigest()[:16]


def tracking_of(folder: Path) -> dict[str, Any]:
    """Return the tracking section of a search, by its journal; raises StoreError."""
    with Journal(folder, read_only=True) as journal:
        created = journal.events(0, 1)
    if not created:
        raise StoreError(f"{folder} holds no search yet")
    return dict((created[0].payload.get("experiment") or {}).get("tracking") or {})


def _searches(store: Path, *, held: bool) -> list[str]:
    """Return the searches whose records are in the store's own MLflow database; with ``held`` those it has held."""
    found = []
    for name in records.search_names(store):
        folder = store / records.SEARCHES_FOLDER / name
        try:
            with Journal(folder, read_only=True) as journal:
                mark = journal.mark(records.MLFLOW_MARK)
            if (mark.event or not held) and not tracking_of(folder).get("uri"):
                found.append(name)
        except StoreError:  # a damaged journal: it can be sent when it is repaired
            continue
    return found
