"""Writes each event of the journal to MLflow: one parent run per search, one child run per trial."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaloom.orchestrator.tracking.client import flattened
from metaloom.orchestrator.tracking.outbox import Warn
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event
from metaloom.workers.records.names import INTERRUPTED
from metaloom.workers.records.paths import parts_of, trial_directory, trial_label

if TYPE_CHECKING:
    from metaloom.orchestrator.tracking.runs import Runs

SEARCH_TAG = "metaloom.search"
SEARCH_ID_TAG = "metaloom.search_id"  # distinguishes two searches of one name on one server
TRIAL_TAG = "metaloom.trial"
STATE_TAG = "metaloom.state"
ERROR_TAG = "metaloom.error"
NOTE_TAG = "metaloom.note"
WARNING_TAG = "metaloom.warning"
HYPERGRADIENT_TAG = "metaloom.hypergradient"
PARENT_TAG = "mlflow.parentRunId"
# Recording may cost 3% of the time: a long trial is drawn when it finishes, short ones at the search's end.
DRAWING_SHARE, DRAWING_S, MOST_DRAWING_S = 0.03, 0.2, 20.0
SEARCH_STATUS = {records.FINISHED: "FINISHED", records.FAILED: "FAILED"}  # any other end: KILLED
CONFIG_SECTIONS = ("tasks", "learner", "inner", "outer", "resources")
TRIAL_ARTIFACTS = (records.CONFIG_FILE, records.META_KNOWLEDGE_FILE, records.FIGURES_FOLDER)


@dataclass
class TrackingState:
    """The state that the projection stores with its mark.

    Attributes:
        runs: Trial number, as text for JSON, to run id.
        steps: Trial number to the last step sent, so that a step repeated after a resume is sent once.
        running: The trials whose run is RUNNING in MLflow.
    """

    tracking_uri: str = ""
    experiment_id: str = ""
    parent_run_id: str = ""
    runs: dict[str, str] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)


class RunWriter:
    """Writes the events of one search to its runs.

    Args:
        folder: Folder of the search.
        store: The store.
        warn: Receives a line for each figure that cannot be drawn.
        search_id: Distinguishes two searches of one name on one server.
        created_at: When the search was created, in seconds since the epoch.
        episodes: Whether the episodes' records are artifacts of their trial.
        state: What was sent before; the writer updates it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        store: Path,
        warn: Warn,
        search_id: str,
        created_at: float,
        episodes: bool,
        state: TrackingState,
    ) -> None:
        self.state = state
        self._folder, self._store, self._warn = folder, store, warn
        self._search_id, self._created_at = search_id, created_at
        self._trial_artifacts = (*TRIAL_ARTIFACTS, *((records.EPISODES_FOLDER,) if episodes else ()))

    def write(self, runs: "Runs", event: Event) -> None:
        """Write one event, if MLflow gets events of its kind."""
        handler = HANDLERS.get(event.kind)
        if handler is not None:
            handler(self, runs, event)

    # The search's own events.

    def _search_created(self, runs: "Runs", event: Event) -> None:
        if not self.state.parent_run_id:
            tags = self._tags(self._folder.name)
            self.state.parent_run_id = runs.create(tags, _milliseconds(event))
        parent = self.state.parent_run_id
        experiment = event.payload.get("experiment") or {}
        runs.params(parent, flattened(experiment))
        runs.text(parent, json.dumps(experiment, indent=1), "experiment_resolved.json")
        runs.upload(parent, self._folder / records.EXPERIMENT_FILE)

    def _search_started(self, runs: "Runs", event: Event) -> None:
        runs.tag(self.state.parent_run_id, STATE_TAG, records.RUNNING)
        runs.resume(self.state.parent_run_id)

    def _search_ended(self, runs: "Runs", event: Event) -> None:
        state = str(event.payload.get("state", records.FINISHED))
        for trial in list(self.state.running):
            self._end_trial(runs, event, trial, "KILLED", records.WAITING)
        parent = self.state.parent_run_id
        runs.tag(parent, STATE_TAG, state)
        spare_s = 0.0 if state == INTERRUPTED else min(DRAWING_SHARE * (event.time - self._created_at), MOST_DRAWING_S)
        self._figures(runs, parent, spare_s)
        runs.end(parent, SEARCH_STATUS.get(state, "KILLED"), _milliseconds(event))

    def _figures(self, runs: "Runs", parent: str, spare_s: float) -> None:
        """Draw the search as it ended."""
        name = self._folder.name
        drawn = self._drawn(
            f"the figures of '{name}'", lambda figures: figures.draw_search(self._store, name, spare_s=spare_s)
        )
        if drawn is None:
            return
        runs.upload(parent, drawn.folder)
        for trial, folder in drawn.trials.items():
            if str(trial) in self.state.runs:
                runs.upload(self.state.runs[str(trial)], folder)

    def _baseline(self, runs: "Runs", event: Event) -> None:
        evaluation = event.payload["evaluation"]
        prefix, parent = f"baseline.{event.payload['method']}", self.state.parent_run_id
        self._scores(runs, event, parent, prefix, evaluation)
        difference = event.payload.get("best_better_by")
        if difference is not None:
            low, high = difference["interval"]
            for ending, value in (("", difference["mean"]), ("_low", low), ("_high", high)):
                runs.metric(parent, f"{prefix}.best_better_by{ending}", value, _milliseconds(event), 0)

    def _best_tested(self, runs: "Runs", event: Event) -> None:
        evaluation = event.payload["evaluation"]
        parent, trial = self.state.parent_run_id, str(event.payload.get("trial", event.trial))
        runs.tag(parent, "metaloom.best", trial)
        for run in (parent, self.state.runs.get(trial)):
            if run is not None:
                self._scores(runs, event, run, records.TEST, evaluation)
        runs.text(parent, json.dumps(evaluation, indent=1), "test.json")
        if trial in self.state.runs and records.EPISODES_FOLDER in self._trial_artifacts:  # it had ended before
            episodes = trial_directory(self._folder, int(trial)) / records.EPISODES_FOLDER
            for part in parts_of(episodes, tests_alone=True):
                runs.upload(self.state.runs[trial], part, episodes.name)

    def _scores(self, runs: "Runs", event: Event, run: str, prefix: str, evaluation: Mapping[str, Any]) -> None:
        low, high = evaluation["interval"]
        metric = str(evaluation.get("metric") or "mean")
        for name, value in ((metric, evaluation["mean"]), ("low", low), ("high", high)):
            runs.metric(run, f"{prefix}.{name}", value, _milliseconds(event), 0)

    # A trial's events.

    def _suggested(self, runs: "Runs", event: Event) -> None:
        run = self._trial_run(runs, event)
        config = event.payload.get("config") or {}
        sections = {section: config[section] for section in CONFIG_SECTIONS if section in config}
        knobs = {name: str(value) for name, value in event.payload["knobs"].items()}
        runs.params(run, flattened(sections) | knobs)
        runs.tag(run, STATE_TAG, records.WAITING)
        if str(event.trial) not in self.state.running:  # a repeated event
            self.state.running.append(str(event.trial))

    def _started(self, runs: "Runs", event: Event) -> None:
        run, trial = self._trial_run(runs, event), str(event.trial)
        runs.tag(run, STATE_TAG, records.RUNNING)
        if trial not in self.state.running:
            runs.resume(run)
            self.state.running.append(trial)

    def _reported(self, runs: "Runs", event: Event) -> None:
        run, trial = self._trial_run(runs, event), str(event.trial)
        report = event.payload["report"]
        step = int(report["step"])
        if step <= self.state.steps.get(trial, -1):
            return
        if trial not in self.state.steps and report.get("hypergradient"):
            runs.tag(run, HYPERGRADIENT_TAG, str(report["hypergradient"]))
        self.state.steps[trial] = step
        low, high = report["interval"]
        metrics = {**report["metrics"], "validation_low": low, "validation_high": high}
        for name, value in metrics.items():
            runs.metric(run, name, value, _milliseconds(event), step)
        if report.get("notes"):
            runs.tag(run, NOTE_TAG, "; ".join(report["notes"]))

    def _stopped(self, runs: "Runs", event: Event) -> None:
        runs.tag(self._trial_run(runs, event), NOTE_TAG, str(event.payload.get("reason", "")))
        self._end_trial(runs, event, str(event.trial), "FINISHED", records.STOPPED)

    def _finished(self, runs: "Runs", event: Event) -> None:
        self._trial_run(runs, event)
        if DRAWING_SHARE * float(event.payload.get("seconds") or 0.0) >= DRAWING_S:
            self._draw_trial(event)
        self._end_trial(runs, event, str(event.trial), "FINISHED", records.FINISHED)

    def _draw_trial(self, event: Event) -> None:
        """Draw the trial's figures for its artifacts; the best trial is drawn again later."""
        assert event.trial is not None
        name, trial, step = self._folder.name, event.trial, self.state.steps.get(str(event.trial))
        self._drawn(
            f"trial {trial} of '{name}'", lambda figures: figures.draw_trial(self._store, name, trial, step=step)
        )

    def _drawn(self, what: str, draw: Callable[[Any], Any]) -> Any:
        """Return what ``draw`` makes with the module ``figures``; None and a warning if it fails."""
        try:
            from metaloom.dashboards import figures  # torch and matplotlib: only if there is something to draw

            return draw(figures)
        except Exception as error:
            self._warn(f"{what} could not be drawn: {error}")
            return None

    def _failed(self, runs: "Runs", event: Event) -> None:
        run = self._trial_run(runs, event)
        reason = str(event.payload.get("reason", ""))
        runs.tag(run, ERROR_TAG, reason)
        runs.text(run, str(event.payload.get("traceback") or reason), "traceback.txt")
        self._end_trial(runs, event, str(event.trial), "FAILED", records.FAILED)

    def _interrupted(self, runs: "Runs", event: Event) -> None:
        self._trial_run(runs, event)
        self._end_trial(runs, event, str(event.trial), "KILLED", records.WAITING)

    def _warned(self, runs: "Runs", event: Event) -> None:
        runs.tag(self._trial_run(runs, event), WARNING_TAG, "; ".join(event.payload["warnings"]))

    def _exploited(self, runs: "Runs", event: Event) -> None:
        """Log a population's new knobs as metrics over the steps, because MLflow's parameters cannot change."""
        run, step = self._trial_run(runs, event), self.state.steps.get(str(event.trial), 0)
        for name, value in event.payload["knobs"].items():
            if isinstance(value, int | float):
                runs.metric(run, f"knob.{name}", value, _milliseconds(event), step)
            else:
                runs.tag(run, f"metaloom.knob.{name}", str(value))

    def _trial_run(self, runs: "Runs", event: Event) -> str:
        """Return the run of the event's trial, made if it is new."""
        trial = str(event.trial)
        if trial not in self.state.runs:
            tags = self._tags(f"{self._folder.name}-{trial_label(int(trial))}")
            tags |= {PARENT_TAG: self.state.parent_run_id, TRIAL_TAG: trial}
            self.state.runs[trial] = runs.create(tags, _milliseconds(event))
            self.state.running.append(trial)  # MLflow makes every run RUNNING
        return self.state.runs[trial]

    def _end_trial(self, runs: "Runs", event: Event, trial: str, status: str, state: str) -> None:
        run = self.state.runs[trial]
        runs.tag(run, STATE_TAG, state)
        directory = trial_directory(self._folder, int(trial))
        for name in self._trial_artifacts:
            runs.upload(run, directory / name)
        runs.end(run, status, _milliseconds(event))
        if trial in self.state.running:
            self.state.running.remove(trial)

    def _tags(self, run_name: str) -> dict[str, str]:
        return {
            SEARCH_TAG: self._folder.name,
            SEARCH_ID_TAG: self._search_id,
            "mlflow.runName": run_name,
            "mlflow.source.name": "metaloom",
        }


def _milliseconds(event: Event) -> int:
    return int(event.time * 1000)


HANDLERS: dict[str, Callable[[RunWriter, "Runs", Event], None]] = {
    records.SEARCH_CREATED: RunWriter._search_created,
    records.SEARCH_STARTED: RunWriter._search_started,
    records.SEARCH_ENDED: RunWriter._search_ended,
    records.BASELINE: RunWriter._baseline,
    records.BEST_TESTED: RunWriter._best_tested,
    records.TRIAL_SUGGESTED: RunWriter._suggested,
    records.TRIAL_STARTED: RunWriter._started,
    records.TRIAL_REPORTED: RunWriter._reported,
    records.TRIAL_STOPPED: RunWriter._stopped,
    records.TRIAL_FINISHED: RunWriter._finished,
    records.TRIAL_FAILED: RunWriter._failed,
    records.TRIAL_INTERRUPTED: RunWriter._interrupted,
    records.TRIAL_EXPLOITED: RunWriter._exploited,
    records.TRIAL_WARNED: RunWriter._warned,
}
