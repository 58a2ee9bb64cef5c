"""What MLflow's runs page shows as columns: the objectives, their interval and the searched knobs, named as in files.

The search's own run has, under the names that its trials have, the best finished trial's values and the knobs' ranges.
A view of the page, which an experiment's tag holds and ``metaloom ui NAME`` opens, shows these columns.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from metaloom.dashboards.text import knob_range
from metaloom.learners.modes import SEARCH
from metaloom.orchestrator.tracking.batches import PARENT, Batches
from metaloom.orchestrator.tracking.client import accepted_key, flattened
from metaloom.orchestrator.tracking.state import TrackingState
from metaloom.workers.records.journal import Event

CONFIG_SECTIONS = ("tasks", "learner", "inner", "outer", "resources")
LOW, HIGH = "validation_low", "validation_high"
# Tags that MLflow's pages read.
VIEW_TAG = "mlflow.sharedViewState."
KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"  # the pages of runs, not those of chat models
METRIC_TAG = "mlflow.experiment.primaryMetric.name"
GREATER_TAG = "mlflow.experiment.primaryMetric.greaterIsBetter"


class RunColumns:
    """Writes the search's own run and the view of one search.

    Args:
        search_id: Distinguishes the view from those of other searches in the experiment.
        created: The search's first event; of its objectives the first one decides.
        is_alone: Whether the experiment is this search's alone.

    Attributes:
        settings: The parameters that the search's own run begins with.
    """

    def __init__(
        self, runs: Batches, state: TrackingState, *, name: str, search_id: str, created: Event, is_alone: bool
    ) -> None:
        self._runs, self._state, self._name, self._search_id = runs, state, name, search_id
        self._created_ms, self._is_alone = int(1000 * created.time), is_alone
        self.settings = settings_of(created.payload.get("experiment") or {})
        self._taken = {accepted_key(name) for name in self.settings}
        objectives: Sequence[Mapping[str, Any]] = (created.payload.get("settings") or {}).get("objectives") or ()
        self._metrics = [str(aim["metric"]) for aim in objectives]
        self._maximize = bool(objectives) and objectives[0]["direction"] == "maximize"

    def begin(self) -> None:
        """Write the experiment's tags and the first parameters."""
        self._runs.params(PARENT, self.settings)
        if self._is_alone and self._metrics:
            self._runs.experiment_tag(KIND_TAG, KIND)
            self._runs.experiment_tag(METRIC_TAG, self._metrics[0])
            self._runs.experiment_tag(GREATER_TAG, "true" if self._maximize else "false")
        self.show()

    def suggested(self, payload: Mapping[str, Any]) -> None:
        """Take the knobs of a trial: those not seen before are columns from now on."""
        ranges = {name: knob_range(text) for name, text in payload["distributions"].items()}
        new = {name: text for name, text in ranges.items() if name not in self._state.knobs}
        if new:
            self._state.knobs |= new
            free = {name: text for name, text in new.items() if accepted_key(name) not in self._taken}
            self._runs.params(PARENT, free)  # MLflow's parameters cannot change
            self.show()

    def reported(self, trial: str, report: Mapping[str, Any]) -> None:
        """Take a trial's last values."""
        values = [report["metrics"].get(metric) for metric in self._metrics]
        self._state.scores[trial] = [_finite(value) for value in (*report["interval"], *values)]

    def finished(self, event: Event) -> None:
        """Write the values of a trial that has finished to the search's run, if it is the best so far.

        A point's step is the number of trials finished so far: event numbers depend on how often a search was resumed.
        """
        if event.id <= self._state.last_finish:  # sent again, for the trial's own run
            return
        self._state.last_finish = event.id
        self._state.finished += 1
        trial, violations = str(event.trial), event.payload.get("violations") or {}
        if any(not by <= 0 for by in violations.values()) or not self._is_better(trial):
            return
        self._state.best = trial
        low, high, *values = self._state.scores[trial]
        shown = dict(zip((LOW, HIGH, *self._metrics), (low, high, *values), strict=True))
        for name, value in shown.items():
            if value is not None:
                self._runs.metric(PARENT, name, value, int(event.time * 1000), self._state.finished)

    def show(self) -> None:
        """Write the view with the columns known so far."""
        metrics = [*self._metrics, LOW, HIGH] if self._metrics else []
        columns = ["attributes.`Created`", *(f"metrics.`{accepted_key(one)}`" for one in metrics)]
        columns += [f"params.`{accepted_key(knob)}`" for knob in self._state.knobs]
        first = f"metrics.`{accepted_key(self._metrics[0])}`" if self._metrics else "attributes.start_time"
        ascending = bool(self._metrics) and not self._maximize
        page = {"orderByKey": first, "orderByAsc": ascending, "selectedColumns": columns}  # the best run first
        view = {"name": f"Metaloom: {self._name}", "createdAt": self._created_ms, "updatedAt": self._created_ms}
        content = json.dumps({**view, "state": json.dumps(page)})
        self._runs.experiment_tag(f"{VIEW_TAG}{view_key(self._search_id)}", content)

    def _is_better(self, trial: str) -> bool:
        value = next(iter(self._state.scores.get(trial, [])[2:]), None)
        if value is None:
            return False
        if not self._state.best:
            return True
        best = self._state.scores[self._state.best][2]
        return best is None or (value > best if self._maximize else value < best)


def settings_of(experiment: Mapping[str, Any]) -> dict[str, str]:
    """Return an experiment's settings by their names, without those that are only ``search``: the range is to come."""
    settings = flattened({**experiment, **staged(experiment)})
    of_trials = (*CONFIG_SECTIONS, "stages")
    return {name: text for name, text in settings.items() if text != SEARCH or name.partition(".")[0] not in of_trials}


def staged(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stages of an experiment or a trial as ``{"stages": {name: sections}}``; empty where it has none."""
    given = [one for one in document.get("stages") or () if isinstance(one, Mapping)]
    sections = {str(one.get("name")): {name: one[name] for name in one if name != "name"} for one in given}
    return {"stages": sections} if sections else {}


def view_key(search_id: str) -> str:
    """Return the key of a search's view in the address of MLflow's runs page."""
    return f"metaloom-{search_id}"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
