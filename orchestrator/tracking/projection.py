"""MLflow as a projection of the journal: one parent run a search, one child run a trial.

Runs are found by their tags before they are made, metrics carry the times of their
events, so that events applied twice (after a kill) leave the same runs as once. If
MLflow has lost what it was given (its database was deleted, another server was
named), the runs are rebuilt from the first event.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from metaloom.dashboards.queries import TRIALS_FOLDER
from metaloom.orchestrator.journal import Event, Journal, Projection
from metaloom.orchestrator.state import INTERRUPTED
from metaloom.orchestrator.tracking import client as tracking_client
from metaloom.orchestrator.tracking.client import Runs, flattened
from metaloom.orchestrator.tracking.outbox import Backlog, Outbox, Outboxes, Warn
from metaloom.workers.records import names as records

SEARCH_TAG = "metaloom.search"
SEARCH_ID_TAG = "metaloom.search_id"  # tells apart two searches of one name on one server
TRIAL_TAG = "metaloom.trial"
STATE_TAG = "metaloom.state"
ERROR_TAG = "metaloom.error"
NOTE_TAG = "metaloom.note"
WARNING_TAG = "metaloom.warning"
HYPERGRADIENT_TAG = "metaloom.hypergradient"
PARENT_TAG = "mlflow.parentRunId"
# Recording may cost 3% of the time: a long trial is drawn as it finishes, short ones at the search's end.
DRAWING_SHARE, DRAWING_S, MOST_DRAWING_S = 0.03, 0.2, 20.0
SEARCH_STATUS = {records.FINISHED: "FINISHED", records.FAILED: "FAILED"}  # any other end: KILLED
EXPERIMENT_FILE = "experiment.yaml"
CONFIG_SECTIONS = ("tasks", "learner", "inner", "outer", "resources")
TRIAL_ARTIFACTS = (
    records.CONFIG_FILE,
    records.META_KNOWLEDGE_FILE,
    records.FIGURES_FOLDER,
)


@dataclass
class TrackingState:
    """What the projection remembers beside its mark.

    Attributes:
        runs: Trial number (as JSON wants it, a text) to run id.
        steps: Trial number to the last step sent: a step repeated after a resume is sent once.
        running: The trials whose run is RUNNING in MLflow.
    """

    tracking_uri: str = ""
    experiment_id: str = ""
    parent_run_id: str = ""
    runs: dict[str, str] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)


class MlflowProjection:
    """Feeds MLflow. Used by one thread; MLflow is imported when the first event comes.

    Args:
        folder: Folder of the search, for its journal and artifacts.
        store: The store, whose own database is used if the tracking section names no ``uri``.
        tracking: The experiment's tracking section.
        warn: Told what MLflow refuses for good.
    """

    name = records.MLFLOW_MARK

    def __init__(self, folder: Path, *, store: Path, tracking: Mapping[str, Any], warn: Warn) -> None:
        self._folder = folder
        self._store = store
        self._warn = warn
        self._uri = tracking_client.tracking_uri(store, tracking.get("uri"))
        self._experiment = str(tracking.get("experiment") or folder.name)
        self._artifacts: str | None = tracking.get("artifacts")
        episodes = () if tracking.get("episodes") is False else (records.EPISODES_FOLDER,)
        self._trial_artifacts = (*TRIAL_ARTIFACTS, *episodes)
        self._connection: Runs | None = None
        self._state = TrackingState()
        self._search_id, self._created_at = "", 0.0

    def state(self) -> str:
        """Return the run ids and what was sent, as JSON, for the mark."""
        return json.dumps(asdict(self._state))

    def apply(self, events: Sequence[Event]) -> None:
        """Bring MLflow up to date; raises MLflow's errors if it cannot be reached."""
        # Forgotten unless all goes well: what was half sent is then found again, by its tags.
        runs, self._connection = self._connection, None
        if runs is None:
            runs, earlier = self._connected(events[0].id)
            events = [*earlier, *events]
        for event in events:
            self._apply_one(runs, event)
        runs.flush()
        self._connection = runs

    def _connected(self, first: int) -> tuple[Runs, list[Event]]:
        """Connect; return the events before ``first`` too if MLflow does not know what they told."""
        journal = Journal(self._folder, read_only=True)
        try:
            created = journal.events(0, 1)[0]
            self._created_at = created.time
            self._search_id = hashlib.sha256(f"{self._folder.name} {created.time!r}".encode()).hexdigest()[:16]
            client, experiment = tracking_client.connect(self._store, self._uri, self._experiment, self._artifacts)
            runs = Runs(client, experiment)
            found = runs.find(SEARCH_ID_TAG, self._search_id)
            trials = {tags[TRIAL_TAG]: run for run, tags in found.items() if TRIAL_TAG in tags}
            parent = next((run for run, tags in found.items() if TRIAL_TAG not in tags), "")
            kept = TrackingState(**json.loads(journal.mark(self.name).state or "{}"))
            self._state = TrackingState(tracking_client.shown(self._uri), experiment, parent, trials)
            if kept.parent_run_id == parent and set(kept.runs.values()) <= set(trials.values()):
                self._state.steps, self._state.running = kept.steps, kept.running
                return runs, []
            return runs, journal.events(0, first - 1) if first > 1 else []
        finally:
            journal.close()

    def _apply_one(self, runs: Runs, event: Event) -> None:
        handler = HANDLERS.get(event.kind)
        if handler is None:
            return
        try:
            handler(self, runs, event)
        except Exception as error:
            if not tracking_client.is_refusal(error):
                raise
            self._warn(f"mlflow refused event {event.id} ({event.kind}) of '{self._folder.name}': {error}")

    # The search's own events.

    def _search_created(self, runs: Runs, event: Event) -> None:
        if not self._state.parent_run_id:
            tags = self._tags(self._folder.name)
            self._state.parent_run_id = runs.create(tags, _milliseconds(event))
        parent = self._state.parent_run_id
        experiment = event.payload.get("experiment") or {}
        runs.params(parent, flattened(experiment))
        runs.text(parent, json.dumps(experiment, indent=1), "experiment_resolved.json")
        runs.upload(parent, self._folder / EXPERIMENT_FILE)

    def _search_started(self, runs: Runs, event: Event) -> None:
        runs.tag(self._state.parent_run_id, STATE_TAG, records.RUNNING)
        runs.resume(self._state.parent_run_id)

    def _search_ended(self, runs: Runs, event: Event) -> None:
        state = str(event.payload.get("state", records.FINISHED))
        for trial in list(self._state.running):
            self._end_trial(runs, event, trial, "KILLED", records.WAITING)
        parent = self._state.parent_run_id
        runs.tag(parent, STATE_TAG, state)
        spare_s = 0.0 if state == INTERRUPTED else min(DRAWING_SHARE * (event.time - self._created_at), MOST_DRAWING_S)
        self._figures(runs, parent, spare_s)
        runs.end(parent, SEARCH_STATUS.get(state, "KILLED"), _milliseconds(event))

    def _figures(self, runs: Runs, parent: str, spare_s: float) -> None:
        """Draw the search as it ended; a figure that cannot be drawn must not keep the records back."""
        from metaloom.dashboards import figures

        try:
            drawn = figures.draw_search(self._store, self._folder.name, spare_s=spare_s)
        except Exception as error:
            self._warn(f"the figures of '{self._folder.name}' could not be drawn: {error}")
            return
        runs.upload(parent, drawn.folder)
        for trial, folder in drawn.trials.items():
            if str(trial) in self._state.runs:
                runs.upload(self._state.runs[str(trial)], folder)

    def _baseline(self, runs: Runs, event: Event) -> None:
        evaluation = event.payload["evaluation"]
        prefix, parent = f"baseline.{event.payload['method']}", self._state.parent_run_id
        self._scores(runs, event, parent, prefix, evaluation)
        difference = event.payload.get("best_better_by")
        if difference is not None:
            low, high = difference["interval"]
            for ending, value in (("", difference["mean"]), ("_low", low), ("_high", high)):
                runs.metric(parent, f"{prefix}.best_better_by{ending}", value, _milliseconds(event), 0)

    def _best_tested(self, runs: Runs, event: Event) -> None:
        evaluation = event.payload["evaluation"]
        parent, trial = self._state.parent_run_id, str(event.payload.get("trial", event.trial))
        runs.tag(parent, "metaloom.best", trial)
        for run in (parent, self._state.runs.get(trial)):
            if run is not None:
                self._scores(runs, event, run, records.TEST, evaluation)
        runs.text(parent, json.dumps(evaluation, indent=1), "test.json")
        if trial in self._state.runs and records.EPISODES_FOLDER in self._trial_artifacts:  # it had ended before
            episodes = self._folder / TRIALS_FOLDER / f"{int(trial):04d}" / records.EPISODES_FOLDER
            for part in sorted(episodes.glob("part-test-*.parquet")):
                runs.upload(self._state.runs[trial], part, episodes.name)

    def _scores(self, runs: Runs, event: Event, run: str, prefix: str, evaluation: Mapping[str, Any]) -> None:
        low, high = evaluation["interval"]
        metric = str(evaluation.get("metric") or "mean")
        for name, value in ((metric, evaluation["mean"]), ("low", low), ("high", high)):
            runs.metric(run, f"{prefix}.{name}", value, _milliseconds(event), 0)

    # A trial's events.

    def _suggested(self, runs: Runs, event: Event) -> None:
        run = self._trial_run(runs, event)
        config = event.payload.get("config") or {}
        told = {section: config[section] for section in CONFIG_SECTIONS if section in config}
        knobs = {name: str(value) for name, value in event.payload["knobs"].items()}
        runs.params(run, flattened(told) | knobs)
        runs.tag(run, STATE_TAG, records.WAITING)
        if str(event.trial) not in self._state.running:  # a repeated event: the run was made, the mark not moved
            self._state.running.append(str(event.trial))

    def _started(self, runs: Runs, event: Event) -> None:
        run, trial = self._trial_run(runs, event), str(event.trial)
        runs.tag(run, STATE_TAG, records.RUNNING)
        if trial not in self._state.running:
            runs.resume(run)
            self._state.running.append(trial)

    def _reported(self, runs: Runs, event: Event) -> None:
        run, trial = self._trial_run(runs, event), str(event.trial)
        report = event.payload["report"]
        step = int(report["step"])
        if step <= self._state.steps.get(trial, -1):
            return
        if trial not in self._state.steps and report.get("hypergradient"):
            runs.tag(run, HYPERGRADIENT_TAG, str(report["hypergradient"]))
        self._state.steps[trial] = step
        low, high = report["interval"]
        metrics = {**report["metrics"], "validation_low": low, "validation_high": high}
        for name, value in metrics.items():
            runs.metric(run, name, value, _milliseconds(event), step)
        if report.get("notes"):
            runs.tag(run, NOTE_TAG, "; ".join(report["notes"]))

    def _stopped(self, runs: Runs, event: Event) -> None:
        runs.tag(self._trial_run(runs, event), NOTE_TAG, str(event.payload.get("reason", "")))
        self._end_trial(runs, event, str(event.trial), "FINISHED", records.STOPPED)

    def _finished(self, runs: Runs, event: Event) -> None:
        self._trial_run(runs, event)
        if DRAWING_SHARE * float(event.payload.get("seconds") or 0.0) >= DRAWING_S:
            self._draw_trial(event)
        self._end_trial(runs, event, str(event.trial), "FINISHED", records.FINISHED)

    def _draw_trial(self, event: Event) -> None:
        """Draw how the trial adapts and what it has learned, for its artifacts; the best one is drawn again later."""
        from metaloom.dashboards import figures

        assert event.trial is not None
        step = self._state.steps.get(str(event.trial))
        try:
            figures.draw_trial(self._store, self._folder.name, event.trial, step=step)
        except Exception as error:  # a figure must not keep the records back
            self._warn(f"trial {event.trial} of '{self._folder.name}' could not be drawn: {error}")

    def _failed(self, runs: Runs, event: Event) -> None:
        run = self._trial_run(runs, event)
        reason = str(event.payload.get("reason", ""))
        runs.tag(run, ERROR_TAG, reason)
        runs.text(run, str(event.payload.get("traceback") or reason), "traceback.txt")
        self._end_trial(runs, event, str(event.trial), "FAILED", records.FAILED)

    def _interrupted(self, runs: Runs, event: Event) -> None:
        self._trial_run(runs, event)
        self._end_trial(runs, event, str(event.trial), "KILLED", records.WAITING)

    def _warned(self, runs: Runs, event: Event) -> None:
        runs.tag(self._trial_run(runs, event), WARNING_TAG, "; ".join(event.payload["warnings"]))

    def _exploited(self, runs: Runs, event: Event) -> None:
        """Parameters may not change in MLflow: what a population moves on is a metric over the steps."""
        run, step = self._trial_run(runs, event), self._state.steps.get(str(event.trial), 0)
        for name, value in event.payload["knobs"].items():
            if isinstance(value, int | float):
                runs.metric(run, f"knob.{name}", value, _milliseconds(event), step)
            else:
                runs.tag(run, f"metaloom.knob.{name}", str(value))

    def _trial_run(self, runs: Runs, event: Event) -> str:
        """Return the run of the event's trial, made now if it is new."""
        trial = str(event.trial)
        if trial not in self._state.runs:
            tags = self._tags(f"{self._folder.name}-{event.trial:04d}")
            tags |= {PARENT_TAG: self._state.parent_run_id, TRIAL_TAG: trial}
            self._state.runs[trial] = runs.create(tags, _milliseconds(event))
            self._state.running.append(trial)  # MLflow makes every run RUNNING
        return self._state.runs[trial]

    def _end_trial(self, runs: Runs, event: Event, trial: str, status: str, state: str) -> None:
        run = self._state.runs[trial]
        runs.tag(run, STATE_TAG, state)
        directory = self._folder / TRIALS_FOLDER / f"{int(trial):04d}"
        for name in self._trial_artifacts:
            runs.upload(run, directory / name)
        runs.end(run, status, _milliseconds(event))
        if trial in self._state.running:
            self._state.running.remove(trial)

    def _tags(self, run_name: str) -> dict[str, str]:
        return {
            SEARCH_TAG: self._folder.name,
            SEARCH_ID_TAG: self._search_id,
            "mlflow.runName": run_name,
            "mlflow.source.name": "metaloom",
        }


def _milliseconds(event: Event) -> int:
    return int(event.time * 1000)


HANDLERS: dict[str, Callable[[MlflowProjection, Runs, Event], None]] = {
    records.SEARCH_CREATED: MlflowProjection._search_created,
    records.SEARCH_STARTED: MlflowProjection._search_started,
    records.SEARCH_ENDED: MlflowProjection._search_ended,
    records.BASELINE: MlflowProjection._baseline,
    records.BEST_TESTED: MlflowProjection._best_tested,
    records.TRIAL_SUGGESTED: MlflowProjection._suggested,
    records.TRIAL_STARTED: MlflowProjection._started,
    records.TRIAL_REPORTED: MlflowProjection._reported,
    records.TRIAL_STOPPED: MlflowProjection._stopped,
    records.TRIAL_FINISHED: MlflowProjection._finished,
    records.TRIAL_FAILED: MlflowProjection._failed,
    records.TRIAL_INTERRUPTED: MlflowProjection._interrupted,
    records.TRIAL_EXPLOITED: MlflowProjection._exploited,
    records.TRIAL_WARNED: MlflowProjection._warned,
}


def start_projections(
    folder: Path,
    *,
    store: Path,
    tracking: Mapping[str, Any],
    warn: Warn,
    others: Sequence[Projection] = (),
) -> Outboxes:
    """Begin to carry the journal of the search in ``folder`` to MLflow and to ``others``.

    Returns at once. Call ``close(timeout_s)`` on what is returned after the search's last event; it
    returns what could not be delivered in that time, which ``drain`` delivers later.

    Args:
        folder: Folder of the search, with its journal.
        store: The store folder.
        tracking: The experiment's tracking section (``uri``: None for the store's own database).
        warn: Told once per outage, in one line.
        others: More projections, such as Optuna's (``Deferred``); each has its own thread.
    """
    mlflow = MlflowProjection(folder, store=store, tracking=tracking, warn=warn)
    first = Outbox(folder, mlflow, warn=warn, state=mlflow.state)
    return Outboxes([outbox.start() for outbox in (first, *(Outbox(folder, one, warn=warn) for one in others))])


def drain(
    folder: Path,
    *,
    store: Path,
    tracking: Mapping[str, Any],
    warn: Warn,
    others: Sequence[Projection] = (),
    timeout_s: float = 600.0,
) -> list[Backlog]:
    """Carry over what earlier runs of the search left behind; return what still could not be delivered."""
    return start_projections(folder, store=store, tracking=tracking, warn=warn, others=others).close(timeout_s)
