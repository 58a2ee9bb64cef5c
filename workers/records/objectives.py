"""What a search is judged by: its objectives, its constraints, and the section that holds them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from metaloom.learners.errors import BadInput, unknown
from metaloom.workers.records.trial import Report

DIRECTIONS = ("maximize", "minimize")


@dataclass(frozen=True)
class Objective:
    """A metric of the reports, and which way is better."""

    metric: str
    direction: str

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise BadInput(unknown("direction of an objective", self.direction, DIRECTIONS))

    def score(self, report: Report) -> float:
        """Return the metric, signed so that larger is better."""
        return self.signed(report.metrics[self.metric])

    def signed(self, value: float) -> float:
        """Return ``value`` such that larger is better."""
        return value if self.direction == "maximize" else -value


@dataclass(frozen=True)
class Constraint:
    """A bound that a trial's metric must keep to be feasible."""

    metric: str
    low: float | None = None
    high: float | None = None

    @property
    def name(self) -> str:
        """How Optuna and readers call it."""
        low = "" if self.low is None else f"{self.low:g}<="
        high = "" if self.high is None else f"<={self.high:g}"
        return f"{low}{self.metric}{high}"

    def violation(self, metrics: Mapping[str, float]) -> float:
        """Return by how much the bound is broken; 0 or less is feasible, an absent or NaN metric breaks it."""
        value = metrics.get(self.metric, math.nan)
        if math.isnan(value):
            return math.inf
        over = -math.inf if self.high is None else value - self.high
        under = -math.inf if self.low is None else self.low - value
        return max(over, under)


@dataclass(frozen=True)
class SearchSettings:
    """The search section of an experiment, as the Director uses it.

    Attributes:
        trials: How many trials the search has.
        objectives: The first one is what schedulers and the best trial go by.
        constraints: Bounds on metrics.
        sampler: ``kind`` and its options.
        scheduler: ``kind`` and its options.
        time_budget_s: No trial is begun, and running ones end at their next report, after so many seconds.
        retries: How often a trial whose worker was lost is taken up again.
    """

    trials: int
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    sampler: Mapping[str, Any] = field(default_factory=lambda: {"kind": "tpe"})
    scheduler: Mapping[str, Any] = field(default_factory=lambda: {"kind": "none"})
    time_budget_s: float | None = None
    retries: int = 2

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "SearchSettings":
        """Read the search section, or what ``to_document`` wrote."""
        objectives = tuple(Objective(one["metric"], one["direction"]) for one in document["objectives"])
        constraints = tuple(
            Constraint(one["metric"], one.get("min"), one.get("max")) for one in document.get("constraints") or ()
        )
        budget, retries = document.get("time_budget_s"), document.get("retries")
        return cls(
            trials=int(document["trials"]),
            objectives=objectives,
            constraints=constraints,
            sampler=dict(document.get("sampler") or {"kind": "tpe"}),
            scheduler=dict(document.get("scheduler") or {"kind": "none"}),
            time_budget_s=None if budget is None else float(budget),
            retries=2 if retries is None else int(retries),
        )

    def to_document(self) -> dict[str, Any]:
        """Return JSON values, for the journal."""
        return {
            "trials": self.trials,
            "objectives": [{"metric": one.metric, "direction": one.direction} for one in self.objectives],
            "constraints": [{"metric": one.metric, "min": one.low, "max": one.high} for one in self.constraints],
            "sampler": dict(self.sampler),
            "scheduler": dict(self.scheduler),
            "time_budget_s": self.time_budget_s,
            "retries": self.retries,
        }
