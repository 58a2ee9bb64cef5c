"""The typed documents that commands print with ``--json``, and the rows of pages.

Each field's annotation documents it; ``json_page.py`` writes docs/json.md from these. A field with a default is left
out of the document if it is None. Evaluations and checks of one knob are in ``workers/records/results.py``.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any

from metaloom.dashboards.by_method import MethodRow
from metaloom.dashboards.by_source import SourceRow
from metaloom.dashboards.endings import PatienceRow, TimeBudgetRow
from metaloom.dashboards.same_knobs import ConfigurationRow
from metaloom.dashboards.stage_rows import StageRow
from metaloom.workers.records.results import EstimatorCheck, KnobCheck


@dataclass(frozen=True, kw_only=True)
class ObjectiveRow:
    """An objective of a search."""

    metric: Annotated[str, "the metric that trials are compared by; the first objective decides"]
    direction: Annotated[str, "`maximize` or `minimize`"]


@dataclass(frozen=True, kw_only=True)
class ConstraintRow:
    """A bound that feasible trials keep."""

    metric: Annotated[str, "only with constraints: the bounded metric"]
    min: Annotated[float | None, "only with constraints: its least value, or null"]
    max: Annotated[float | None, "only with constraints: its greatest value, or null"]


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """The present state of one trial."""

    id: Annotated[int, "the trial's number"]
    state: Annotated[str, "`finished`, `stopped`, `failed`, `running` or `waiting`"]
    value: Annotated[float | None, "the first objective, by the last report; null before the first"]
    interval: Annotated[tuple[float, float] | None, "[low, high], 95%, of the value; null if it is not of episodes"]
    episodes: Annotated[int, "the number of validation episodes that the interval is of"]
    knobs: Annotated[Mapping[str, Any], "the name and value of each searched knob of this trial"]
    steps: Annotated[int, "outer steps done"]
    seconds: Annotated[float, "the time of these steps"]
    episodes_seen: Annotated[int, "the number of training and validation episodes so far"]
    hypergradient: Annotated[
        Mapping[str, Any] | None,
        "`estimator` (and why `auto` chose it), `norm`, and the estimator's diagnostics, such as "
        "`inner_gradient_norm` and `residual` of an implicit one: means over the outer steps of the last "
        "report; null before the first",
    ]
    run_id: Annotated[str | None, "of its MLflow run"]
    error: Annotated[str | None, "why it failed, or null"]
    notes: Annotated[tuple[str, ...], "remarks, such as those of `metaloom note`, or why it was stopped"]
    warnings: Annotated[tuple[str, ...], "problems that were repaired, such as a damaged checkpoint"]
    values: Annotated[Mapping[str, float | None] | None, "only with several objectives: each by its name"] = None
    repeat_of: Annotated[int | None, "only with `search.repeats`: the trial whose knobs it repeats"] = None


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """What a search would do: the document of ``search --dry-run`` and ``train --dry-run``."""

    name: str
    trials: int
    steps: int
    objectives: tuple[ObjectiveRow, ...]
    sampler: str
    scheduler: str
    executor: str
    baselines: tuple[str, ...]
    knobs: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BestTestRow:
    """The test of the best trial."""

    trial: Annotated[int, "the best trial's number; `test` is null before it is tested"]
    evaluation: Annotated[Mapping[str, Any], "its test, as `evaluate` prints it"]


@dataclass(frozen=True, kw_only=True)
class BaselineRow:
    """The test of a baseline."""

    method: Annotated[str, "the baseline's name"]
    evaluation: Annotated[Mapping[str, Any], "its test on the same episodes, as `evaluate` prints it"]
    best_better_by: Annotated[
        Mapping[str, Any] | None,
        "`mean`, `interval` and `episodes` of the best trial's advantage; null where the episodes are not the same",
    ]


@dataclass(frozen=True, kw_only=True)
class LearnedRow:
    """A figure of what a trial has learned."""

    name: Annotated[str, "the figure's name; `learned` is empty before a search's end"]
    caption: Annotated[str, "what the figure shows"]
    figure: Annotated[str, "its file"]


@dataclass(frozen=True, kw_only=True)
class SearchRow:
    """Everything about one search: the document of ``metaloom show --json``."""

    name: Annotated[str, "of the search"]
    state: Annotated[str, "`waiting` (not begun), `running`, `finished`, `failed`, or `interrupted` (resume it)"]
    tracking_uri: Annotated[str | None, "the address of the search's MLflow; null before MLflow has it"]
    experiment_id: Annotated[str | None, "of the experiment in MLflow, likewise"]
    parent_run_id: Annotated[str | None, "of the search's run in MLflow, likewise"]
    seed: Annotated[int | None, "of the search"]
    asked: Annotated[int | None, "the number of trials asked for"]
    objectives: tuple[ObjectiveRow, ...]
    best: Annotated[
        TrialRow | None,
        "the row of the best trial, or null: the best finished one that keeps the constraints; if none has "
        "finished, as under a time budget, the best stopped one; if none has ended, the best one with a report",
    ]
    baselines: tuple[BaselineRow, ...]
    test: BestTestRow | None
    learned: tuple[LearnedRow, ...]
    warnings: Annotated[tuple[str, ...], "damage to the search's records: what to do, or how it was repaired"]
    notes: Annotated[tuple[str, ...], "what `metaloom note` has added to the search"]
    trials: tuple[TrialRow, ...]
    constraints: tuple[ConstraintRow, ...] | None = None
    infeasible: Annotated[
        Mapping[int, float] | None, "only with constraints: each trial that breaks them, to the sum of its violations"
    ] = None
    time_budget: TimeBudgetRow | None = None
    patience: PatienceRow | None = None
    configurations: tuple[ConfigurationRow, ...] | None = None
    methods: tuple[MethodRow, ...] | None = None
    sources: tuple[SourceRow, ...] | None = None
    stages: tuple[StageRow, ...] | None = None
    pareto: Annotated[tuple[int, ...] | None, "only with several objectives: the trials that no other dominates"] = None


@dataclass(frozen=True, kw_only=True)
class ListedSearch:
    """One search in the list of ``metaloom runs``."""

    name: Annotated[str, "of the search"]
    state: Annotated[str, "as in `show`; or `empty` (no record yet), or `unreadable`"]
    trials: Annotated[Mapping[str, int], "the number of trials in each state"]
    asked: Annotated[int | None, "the number of trials asked for"]
    objectives: tuple[ObjectiveRow, ...]
    best: Annotated[int | None, "the best trial's number, or null"]
    value: Annotated[float | None, "its first objective, or null"]
    created: Annotated[float | None, "seconds since 1970, of the first record"]
    updated: Annotated[float | None, "seconds since 1970, of the last record"]
    warnings: Annotated[tuple[str, ...], "as in `show`; or why the search is `empty` or `unreadable`"]


@dataclass(frozen=True)
class KnobRow(KnobCheck):
    """The check of one learned knob of a member."""

    estimator: Annotated[str, "the estimator that was checked"] = ""
    exact: Annotated[bool, "whether that estimator leaves nothing out"] = False


@dataclass(frozen=True, kw_only=True)
class MemberRow:
    """The check of one member of the experiment's choices."""

    chosen: Annotated[Mapping[str, Any], "of each member of each choice: the choices that differ from the defaults"]
    knobs: Annotated[Mapping[str, float], "as above, knobs by their plain names"]
    estimator: Annotated[str, "as above"]
    reason: Annotated[str, "as above"]
    diagnostics: Annotated[Mapping[str, float], "the estimator's diagnostics"]


@dataclass(frozen=True, kw_only=True)
class CheckRow:
    """The check of an experiment's hypergradients: the document of ``metaloom check --json``.

    With searched methods a knob is named as in ``learner[maml].initialization``; if a choice in it differs from its
    default, the name ends as in ``where learner.architecture is conv4``.
    """

    name: Annotated[str, "of the experiment"]
    estimator: Annotated[str, "the default's estimator"]
    reason: Annotated[str, "why `auto` chose it, or empty"]
    knobs: Annotated[Mapping[str, float], "each learned knob's name, and the relative error of its hypergradient"]
    details: Mapping[str, KnobRow]
    members: tuple[MemberRow, ...]
    estimators: Mapping[str, EstimatorCheck]
    flagged: Annotated[str | None, "why the estimator reports an unreliable result (exit code 2), or null"]
    verdict: Annotated[str, "the result in one or more sentences"]


@dataclass(frozen=True, kw_only=True)
class PredictionRow:
    """The prediction for one query."""

    query: Annotated[str, "the image's file, or the table's row"]
    prediction: Annotated[Any, "the class, or the number"]
    probabilities: Annotated[Mapping[str, float] | None, "only in classification: of each class"] = None


@dataclass(frozen=True, kw_only=True)
class PredictionsRow:
    """The predictions on a new task: the document of ``metaloom adapt --json``."""

    predictions: tuple[PredictionRow, ...]
    setting: Annotated[
        str, "`inductive`, `semi-supervised`, or `transductive` if a prediction depends on the other queries"
    ]
    batch_norm: Annotated[str, "its mode, or `none`"]
    warnings: Annotated[
        tuple[str, ...],
        "what makes predictions worse than the bundle's scores, such as too few queries at once in a transductive "
        "setting, and what of the inputs was converted",
    ]
    labelled: Annotated[int, "how many queries have a label or target, and are scored"]
    accuracy: Annotated[float | None, "only in classification, where queries have labels"] = None
    loss: Annotated[float | None, "only in regression, where the queries have targets: the mean squared error"] = None
    saved: Annotated[str | None, "only with --out: the folder of the adapted model"] = None


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One trial of a contender."""

    search: Annotated[str, "its search"]
    trial: Annotated[int, "its number"]
    seed: Annotated[int | None, "the search's seed"]


@dataclass(frozen=True, kw_only=True)
class DifferenceRow:
    """By how much a contender is better than the first."""

    mean: Annotated[float, "above 0 where the contender is better than the first: of accuracy, or of minus the loss"]
    interval: Annotated[tuple[float, float] | None, "[low, high], 95%, of the mean over episodes; null of one episode"]
    seeds_interval: Annotated[
        tuple[float, float] | None, "[low, high], 95%, over the seeds; null unless both have at least two"
    ]


@dataclass(frozen=True, kw_only=True)
class ContenderRow:
    """A contender: trials that differ by their seeds alone."""

    name: Annotated[str, "such as `first:3`; several trials of one configuration are one contender"]
    runs: tuple[ComparedRun, ...]
    mean: Annotated[float, "over the test episodes, and over its trials"]
    interval: Annotated[tuple[float, float], "[low, high], 95%, of the mean over episodes"]
    better_than_first: DifferenceRow | None


@dataclass(frozen=True, kw_only=True)
class DifferingRow:
    """A setting in which the contenders differ."""

    name: Annotated[str, "a setting, as for `--set`"]
    values: Annotated[tuple[str | None, ...], "its value in each contender; null where it has no such setting"]


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """The comparison of trials: the document of ``metaloom compare --json``."""

    metric: Annotated[str, "`accuracy` or `loss`"]
    episodes: Annotated[int, "the number of test episodes, the same for all"]
    seed: Annotated[int, "of these episodes"]
    contenders: tuple[ContenderRow, ...]
    differing: tuple[DifferingRow, ...]

    def __repr__(self) -> str:
        lines = [f"<comparison on {self.episodes} test episodes of seed {self.seed}, {self.metric}:"]
        for one in self.contenders:
            better = "" if one.better_than_first is None else f", better by {one.better_than_first.mean:+.4f}"
            lines.append(f"  {one.name} {one.mean:.4f}{better}")
        return "\n".join(lines) + ">"


def to_json(row: Any) -> Any:
    """Return a row as JSON values, without optional fields that are None; numbers that are not finite become None."""
    if hasattr(row, "__dataclass_fields__"):
        pairs = ((field, getattr(row, field.name)) for field in fields(row))
        return {field.name: to_json(item) for field, item in pairs if item is not None or field.default is MISSING}
    if isinstance(row, Mapping):
        return {str(key): to_json(item) for key, item in row.items()}
    if isinstance(row, list | tuple):
        return [to_json(item) for item in row]
    if isinstance(row, float) and not math.isfinite(row):
        return None
    return row
