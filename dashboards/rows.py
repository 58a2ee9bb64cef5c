"""What is shown of searches, as typed rows: the documents of ``show --json`` and ``runs --json``, and their pages.

Each field is annotated with what it holds; ``json_page.py`` writes docs/json.md from that. A field
with a default is left out of the document where it is None.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any


@dataclass(frozen=True, kw_only=True)
class ObjectiveRow:
    """What trials are judged by."""

    metric: Annotated[str, "what trials are judged by, the first one deciding"]
    direction: Annotated[str, "`maximize` or `minimize`"]


@dataclass(frozen=True, kw_only=True)
class ConstraintRow:
    """A bound that feasible trials keep."""

    metric: Annotated[str, "only with constraints: the metric that is bounded"]
    min: Annotated[float | None, "only with constraints: its least value, or null"]
    max: Annotated[float | None, "only with constraints: its greatest value, or null"]


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial as it stands."""

    id: Annotated[int, "the trial's number"]
    state: Annotated[str, "`finished`, `stopped`, `failed`, `running` or `waiting`"]
    value: Annotated[float | None, "the first objective, by the last report; null before the first"]
    interval: Annotated[
        tuple[float, float] | None,
        "[low, high], 95%, of the value over its validation episodes; null where the objective is not of episodes",
    ]
    episodes: Annotated[int, "the number of those"]
    knobs: Annotated[Mapping[str, Any], "each searched knob that exists in this trial, by its name, and its value"]
    steps: Annotated[int, "outer steps done"]
    seconds: Annotated[float, "spent on them"]
    episodes_seen: Annotated[int, "training and validation episodes played"]
    hypergradient: Annotated[
        Mapping[str, Any] | None,
        "`estimator` (and why `auto` chose it), `norm`, and what the estimator says of itself, as "
        "`inner_gradient_norm` and `residual` of an implicit one: means over the outer steps of the last "
        "report; null before the first",
    ]
    run_id: Annotated[str | None, "of its MLflow run"]
    error: Annotated[str | None, "why it failed, or null"]
    notes: Annotated[
        tuple[str, ...],
        "what else is to be known, such as why it was stopped, or that it kept the meta-knowledge of an earlier step",
    ]
    warnings: Annotated[
        tuple[str, ...],
        "what went wrong and was put right, such as a damaged checkpoint and from where the trial went on",
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
    caption: Annotated[str, "what it shows, in words"]
    figure: Annotated[str, "its file"]


@dataclass(frozen=True, kw_only=True)
class SearchRow:
    """Everything about one search: the document of ``metaloom show --json``."""

    name: Annotated[str, "of the search"]
    state: Annotated[
        str,
        "`waiting` (nothing has begun), `running`, `finished`, `failed`, or `interrupted` (stopped or killed:"
        " resume it)",
    ]
    tracking_uri: Annotated[str | None, "where MLflow has it; null before MLflow has taken it"]
    experiment_id: Annotated[str | None, "of the experiment in MLflow, likewise"]
    parent_run_id: Annotated[str | None, "of the search's run in MLflow, likewise"]
    seed: Annotated[int | None, "of the search"]
    asked: Annotated[int | None, "the number of trials asked for"]
    objectives: tuple[ObjectiveRow, ...]
    best: Annotated[
        TrialRow | None,
        "the row of the best trial, or null: the best of the finished ones that keep the constraints; where "
        "none has finished, as under a time budget, of the stopped ones; where none has ended, of those that "
        "have reported",
    ]
    baselines: tuple[BaselineRow, ...]
    test: BestTestRow | None
    learned: tuple[LearnedRow, ...]
    trials: tuple[TrialRow, ...]
    constraints: tuple[ConstraintRow, ...] | None = None
    infeasible: Annotated[
        Mapping[int, float] | None,
        "only with constraints: each trial that breaks them, by its number, and by how much in all",
    ] = None
    pareto: Annotated[
        tuple[int, ...] | None,
        "only with several objectives: the numbers of the trials that no other betters in all of them",
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
    """Return a row as JSON values: optional fields that are None are left out, what JSON cannot say is None."""
    if hasattr(row, "__dataclass_fields__"):
        pairs = ((one, getattr(row, one.name)) for one in fields(row))
        return {one.name: to_json(found) for one, found in pairs if found is not None or one.default is MISSING}
    if isinstance(row, Mapping):
        return {str(key): to_json(one) for key, one in row.items()}
    if isinstance(row, list | tuple):
        return [to_json(one) for one in row]
    if isinstance(row, float) and not math.isfinite(row):
        return None
    return row
