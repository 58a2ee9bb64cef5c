"""Writes each event of the journal to MLflow: one parent run per search, one child run per trial."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from metaloom.learners.redaction import redacted
from metaloom.orchestrator.tracking.batches import PARENT, RUNNING, Batches
from metaloom.orchestrator.tracking.client import flattened
from metaloom.orchestrator.tracking.columns import CONFIG_SECTIONS, HIGH, LOW, RunColumns, staged
from metaloom.orchestrator.tracking.describing import HtmlReport, attach, describe
from metaloom.orchestrator.tracking.outbox import Warn
from metaloom.orchestrator.tracking.state import TrackingState
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event
from metaloom.workers.records.names import parts_of, trial_directory, trial_label

SEARCH_TAG = "metaloom.search"
SEARCH_ID_TAG = "metaloom.search_id"  # distinguishes two searches of one name on one server
TRIAL_TAG = "metaloom.trial"
STATE_TAG = "metaloom.state"
ERROR_TAG = "metaloom.error"
NOTE_TAG = "metaloom.note"
REMARK_TAG = "metaloom.remark"  # the user's
WARNING_TAG = "metaloom.warning"
STAGE_TAG = "metaloom.stage"  # with the name of a stage after it: its digest and its numbers
HYPERGRADIENT_TAG = "metaloom.hypergradient"
# Recording may cost 3% of the time: a long trial is drawn when it finishes, short ones at the search's end.
DRAWING_SHARE, DRAWING_S, MOST_DRAWING_S = 0.03, 0.2, 20.0
REPORT_S = 1.0  # what the figures of the HTML report take; `metaloom sync` draws those of a shorter search
SEARCH_STATUS = {records.FINISHED: "FINISHED", records.FAILED: "FAILED"}  # any other end: KILLED
TRIAL_ARTIFACTS = (records.CONFIG_FILE, records.META_KNOWLEDGE_FILE, records.FIGURES_FOLDER)


class RunWriter:
    """Writes the events of one search to its runs; the method ``_on_KIND`` writes those of a kind.

    Args:
        runs: Receives what is to be written.
        warn: Receives a line for each figure that cannot be drawn.
        search_id: Distinguishes two searches of one name on one server.
        created: The search's first event.
        is_alone: Whether the experiment is this search's alone.
        episodes: Whether the episodes' records are artifacts of their trial.
        state: What was sent before; the writer updates it.
        draws: Whether figures are drawn.
        html: Makes the search's report as HTML, at its end; None: it has none.
    """

    def __init__(
        self,
        runs: Batches,
        folder: Path,
        *,
        store: Path,
        warn: Warn,
        search_id: str,
        created: Event,
        is_alone: bool,
        episodes: bool,
        state: TrackingState,
        draws: bool = True,
        html: HtmlReport | None = None,
    ) -> None:
        self._html = html
        self.state, self.runs = state, runs
        self._folder, self._store, self._warn = folder, store, warn
        self._search_id, self._created_at, self._draws = search_id, created.time, draws
        self._columns = RunColumns(
            runs, state, name=folder.name, search_id=search_id, created=created, is_alone=is_alone
        )
        self._trial_artifacts = (*TRIAL_ARTIFACTS, *((records.EPISODES_FOLDER,) if episodes else ()))

    def write(self, event: Event) -> None:
        """Write one event, if MLflow gets events of its kind."""
        handler = getattr(self, f"_on_{event.kind}", None)
        if handler is not None:
            handler(event)

    # The search's own events.

    def _on_search_created(self, event: Event) -> None:
        if PARENT not in self.runs:
            self.runs.begin(PARENT, self._tags(self._folder.name), _milliseconds(event))
        self._columns.begin()
        experiment = event.payload.get("experiment") or {}
        self.runs.text(PARENT, "experiment_resolved.json", json.dumps(experiment, indent=1))
        file = self._folder / records.EXPERIMENT_FILE
        if file.is_file():  # version 0.2 and earlier wrote a password into it
            self.runs.text(PARENT, file.name, redacted(file.read_text()))

    def _on_search_started(self, event: Event) -> None:
        self.runs.tag(PARENT, STATE_TAG, records.RUNNING)
        self.runs.status(PARENT, RUNNING)

    def _on_search_ended(self, event: Event) -> None:
        state = str(event.payload.get("state", records.FINISHED))
        for trial in list(self.state.running):
            self._end_trial(event, trial, "KILLED", records.WAITING)
        self.runs.tag(PARENT, STATE_TAG, state)
        spare_s = min(DRAWING_SHARE * (event.time - self._created_at), MOST_DRAWING_S)
        self._figures(0.0 if state == records.INTERRUPTED else spare_s)
        if self._draws:
            describe(self.runs, self._store, self._folder.name, self._warn)
        if state != records.INTERRUPTED:  # Ctrl-C waits for nothing
            self.attach(event.id, draws=DRAWING_SHARE * (event.time - self._created_at) >= REPORT_S)
        self.runs.status(PARENT, SEARCH_STATUS.get(state, "KILLED"), _milliseconds(event))

    def _on_search_extended(self, event: Event) -> None:
        for trial in event.payload["trials"]:  # which the former time budget had stopped
            self.runs.tag(str(trial), NOTE_TAG, "")

    def _on_renamed(self, event: Event) -> None:
        for key in (PARENT, *self.state.runs):
            name = self._folder.name if key == PARENT else f"{self._folder.name}-{trial_label(int(key))}"
            for tag, value in self._tags(name).items():
                self.runs.tag(key, tag, value)
        self._columns.show()

    def _on_noted(self, event: Event) -> None:
        run = PARENT if event.trial is None else self._trial_run(event)
        self.runs.tag(run, REMARK_TAG, "\n".join(event.payload["notes"]))
        if self._draws:
            describe(self.runs, self._store, self._folder.name, self._warn)

    def _figures(self, spare_s: float) -> None:
        name = self._folder.name
        drawn = self._drawn(
            f"the figures of '{name}'", lambda draw: draw.draw_search(self._store, name, spare_s=spare_s)
        )
        if drawn is not None:
            self.runs.upload(PARENT, drawn.folder)
            for trial, folder in drawn.trials.items():
                if str(trial) in self.runs:
                    self.runs.upload(str(trial), folder)

    def attach(self, last: int, *, draws: bool) -> None:
        """Write the report as HTML, if there is a maker; ``last`` is the id of the last event that it tells of."""
        if self._html is not None and attach(
            self.runs, self._html, self._store, self._folder.name, self._warn, draws=draws
        ):
            self.state.reported = last if draws else 0

    def _on_baseline(self, event: Event) -> None:
        evaluation = event.payload["evaluation"]
        prefix = f"baseline.{event.payload['method']}"
        self._scores(event, PARENT, prefix, evaluation)
        difference = event.payload.get("best_better_by")
        if difference is not None:
            name, (low, high) = f"{prefix}.best_better_by", difference["interval"]
            self._metrics(event, PARENT, {name: difference["mean"], f"{name}_low": low, f"{name}_high": high})

    def _on_best_tested(self, event: Event) -> None:
        evaluation = event.payload["evaluation"]
        trial = str(event.payload.get("trial", event.trial))
        self.runs.tag(PARENT, "metaloom.best", trial)
        for run in (PARENT, trial):
            if run in self.runs:
                self._scores(event, run, records.TEST, evaluation)
        self.runs.text(PARENT, "test.json", json.dumps(evaluation, indent=1))
        if trial in self.runs and records.EPISODES_FOLDER in self._trial_artifacts:  # it had ended before
            episodes = trial_directory(self._folder, int(trial)) / records.EPISODES_FOLDER
            for part in parts_of(episodes, tests_alone=True):
                self.runs.upload(trial, part, episodes.name)

    def _scores(self, event: Event, run: str, prefix: str, evaluation: Mapping[str, Any]) -> None:
        low, high = evaluation["interval"]
        metrics = {str(evaluation.get("metric") or "mean"): evaluation["mean"], "low": low, "high": high}
        if units := evaluation.get("units"):
            metrics["rmse"] = units["rmse"]
        if evaluation.get("inductive"):
            metrics["inductive"] = evaluation["inductive"]["mean"]
        self._metrics(event, run, {f"{prefix}.{name}": value for name, value in metrics.items()})

    def _metrics(self, event: Event, run: str, metrics: Mapping[str, float], step: int = 0) -> None:
        for name, value in metrics.items():
            self.runs.metric(run, name, value, _milliseconds(event), step)

    # A trial's events.

    def _on_trial_suggested(self, event: Event) -> None:
        run = self._trial_run(event)
        config = event.payload.get("config") or {}
        sections = {section: config[section] for section in CONFIG_SECTIONS if section in config}
        sections |= staged(config)
        knobs = {name: str(value) for name, value in event.payload["knobs"].items()}
        self.runs.params(run, flattened(sections) | knobs)
        self._columns.suggested(event.payload)
        self.runs.tag(run, STATE_TAG, records.WAITING)
        if str(event.trial) not in self.state.running:  # a repeated event
            self.state.running.append(str(event.trial))

    def _on_trial_started(self, event: Event) -> None:
        trial = self._trial_run(event)
        self.runs.tag(trial, STATE_TAG, records.RUNNING)
        if trial not in self.state.running:
            self.runs.status(trial, RUNNING)
            self.state.running.append(trial)

    def _on_trial_reported(self, event: Event) -> None:
        trial = self._trial_run(event)
        report = event.payload["report"]
        step = int(report["step"])
        if step <= self.state.steps.get(trial, -1):
            return
        for one in report.get("stages", ()):
            told = f"{one['metric']} {one['value']:.6g} after {one['steps']} steps, {one['seconds']:.1f} s"
            self.runs.tag(trial, f"{STAGE_TAG}.{one['name']}", f"{one['digest']} ({told})")
        if trial not in self.state.steps and report.get("hypergradient"):
            self.runs.tag(trial, HYPERGRADIENT_TAG, str(report["hypergradient"]))
        self.state.steps[trial] = step
        low, high = report["interval"]
        self._metrics(event, trial, {**report["metrics"], LOW: low, HIGH: high}, step)
        self._columns.reported(trial, report)
        if report.get("notes"):
            self.runs.tag(trial, NOTE_TAG, "; ".join(report["notes"]))

    def _on_trial_stopped(self, event: Event) -> None:
        self.runs.tag(self._trial_run(event), NOTE_TAG, str(event.payload.get("reason", "")))
        self._end_trial(event, str(event.trial), "FINISHED", records.STOPPED)

    def _on_trial_finished(self, event: Event) -> None:
        self._trial_run(event)
        if DRAWING_SHARE * float(event.payload.get("seconds") or 0.0) >= DRAWING_S:  # the best one is drawn again later
            name, trial, step = self._folder.name, event.trial, self.state.steps.get(str(event.trial))
            what = f"trial {trial} of '{name}'"
            self._drawn(what, lambda draw: draw.draw_trial(self._store, name, trial, step=step))
        self._columns.finished(event)
        self._end_trial(event, str(event.trial), "FINISHED", records.FINISHED)

    def _drawn(self, what: str, draw: Callable[[Any], Any]) -> Any:
        """Return what ``draw`` makes with the module ``figures``; None and a warning if it fails."""
        if not self._draws:
            return None
        try:
            from metaloom.dashboards import figures  # torch and matplotlib: only if there is something to draw

            return draw(figures)
        except Exception as error:
            self._warn(f"{what} could not be drawn: {redacted(str(error))}")
            return None

    def _on_trial_failed(self, event: Event) -> None:
        run = self._trial_run(event)
        reason = str(event.payload.get("reason", ""))
        self.runs.tag(run, ERROR_TAG, reason)
        self.runs.text(run, "traceback.txt", str(event.payload.get("traceback") or reason))
        self._end_trial(event, str(event.trial), "FAILED", records.FAILED)

    def _on_trial_interrupted(self, event: Event) -> None:
        self._trial_run(event)
        self._end_trial(event, str(event.trial), "KILLED", records.WAITING)

    def _on_trial_warned(self, event: Event) -> None:
        self.runs.tag(self._trial_run(event), WARNING_TAG, "; ".join(event.payload["warnings"]))

    def _on_trial_exploited(self, event: Event) -> None:
        """Log a population's new knobs as metrics over the steps, because MLflow's parameters cannot change."""
        run, step = self._trial_run(event), self.state.steps.get(str(event.trial), 0)
        for name, value in event.payload["knobs"].items():
            if isinstance(value, int | float):
                self._metrics(event, run, {f"knob.{name}": value}, step)
            else:
                self.runs.tag(run, f"metaloom.knob.{name}", str(value))

    def _trial_run(self, event: Event) -> str:
        trial = str(event.trial)
        if trial not in self.runs:
            tags = self._tags(f"{self._folder.name}-{trial_label(int(trial))}")
            self.runs.begin(trial, {**tags, TRIAL_TAG: trial}, _milliseconds(event))
            self.state.running.append(trial)  # MLflow makes every run RUNNING
        return trial

    def _end_trial(self, event: Event, trial: str, status: str, state: str) -> None:
        self.runs.tag(trial, STATE_TAG, state)
        directory = trial_directory(self._folder, int(trial))
        for name in self._trial_artifacts:
            self.runs.upload(trial, directory / name)
        self.runs.status(trial, status, _milliseconds(event))
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
