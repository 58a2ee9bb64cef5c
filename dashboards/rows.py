"""The typed rows of searches: the documents of ``show --json`` and ``runs --json``, and their pages.

Each field's annotation documents it; ``json_page.py`` writes docs/json.md from these. A field with a default is left
out of the document if it is None.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any


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
    interval: Annotated[
        tuple[float, float] | None,
        "[low, high], the value's 95% interval over the validation episodes; null if the objective is not of episodes",
    ]
    episodes: Annotated[int, "the number of these validation episodes"]
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
    notes: Annotated[
        tuple[str, ...],
        "remarks, such as why the trial was stopped, or that it kept the meta-knowledge of an earlier step",
    ]
    warnings: Annotated[
        tuple[str, ...],
        "problems that were repaired, such as a damaged checkpoint, with the step from which the trial went on",
    ]
    values: Annotated[Mapping[str, float | None] | None, "only with several objectives: each by its name"] = None


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
        "`mean`, `interval` and `episodes` of the difference, above 0 where the best trial is better; null "
        "where the episodes are not the same",
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
    state: Annotated[
        str,
        "`waiting` (not begun), `running`, `finished`, `failed`, or `interrupted` (stopped or killed: resume it)",
    ]
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
    trials: tuple[TrialRow, ...]
    constraints: tuple[ConstraintRow, ...] | None = None
    infeasible: Annotated[
        Mapping[int, float] | None,
        "only with constraints: the number of each trial that breaks them, to the sum of its violations",
    ] = None
    pareto: Annotated[
        tuple[int, ...] | None,
        "only with several objectives: the numbers of the trials that no other trial dominates",
    ] = None


@dataclass(frozen=True, kw_only=True)
class ListedSearch:
    """One search in the list of ``metaloom runs``."""

    name: Annotated[str, "of the search"]
    state: Annotated[str, "as in `show`"]
    trials: Annotated[Mapping[str, int], "the number of trials in each state"]
    asked: Annotated[int | None, "the number of trials asked for"]
    objectives: tuple[ObjectiveRow, ...]
    best: Annotated[int | None, "the best trial's number, or null"]
    value: Annotated[float | None, "its first objective, or null"]
    created: Annotated[float | None, "seconds since 1970, of the first record"]
    updated: Annotated[float | None, "seconds since 1970, of the last record"]


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
