"""How far a trial has come: all of its state that is not a tensor."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from metaloom.learners.base import EpisodeOutcome, MetaStep
from metaloom.workers.records.names import (
    DIAGNOSTIC,
    HYPERGRADIENT_NORM,
    INNER_GRADIENT_NORM,
    RESIDUAL,
    TRAIN_ACCURACY,
    TRAIN_LOSS,
    Report,
    is_better,
)

UNSOLVED = 0.5  # of the right side's norm: the rest of the solution is then mostly missing


@dataclass
class Progress:
    """What a checkpoint holds beside tensors.

    Attributes:
        step: Outer steps done.
        episodes: Episodes seen, of training and validation.
        seconds: Time spent, all attempts together.
        recording_seconds: Part of it spent on episode records.
        stale: Validations since the best one.
        best: The report of the best validation.
        last: The last report.
        finished: Whether there is nothing left to do.
        retraining: The learner section with its relaxed cells made discrete, once they are retrained.
    """

    step: int = 0
    episodes: int = 0
    seconds: float = 0.0
    recording_seconds: float = 0.0
    stale: int = 0
    best: Report | None = None
    last: Report | None = None
    finished: bool = False
    retraining: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary of JSON values."""
        document: dict[str, Any] = dict(vars(self))
        for name in ("best", "last"):
            report: Report | None = document[name]
            document[name] = report.to_json() if report else None
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Progress":
        """Read what ``to_json`` wrote."""
        values = dict(document)
        for name in ("best", "last"):
            values[name] = Report.from_json(values[name]) if values[name] else None
        return cls(**values)

    def judge(self, metric: str, report: Report) -> bool:
        """Say whether ``report`` is the best so far, and remember it."""
        incumbent = self.best.metrics[metric] if self.best else None
        if is_better(metric, report.metrics[metric], incumbent):
            self.best, self.stale = report, 0
            return True
        self.stale += 1
        return False


@dataclass
class Tally:
    """What training has shown since the last validation."""

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    diagnostics: dict[str, list[float]] = field(default_factory=dict)

    def add(self, meta: MetaStep, norm: float) -> None:
        """Count one outer step."""
        self.losses.append(meta.loss)
        self.norms.append(norm)
        self.accuracies.extend(_final_accuracies(meta.outcomes))
        for name, number in meta.diagnostics.items():
            self.diagnostics.setdefault(f"{DIAGNOSTIC}{name}", []).append(number)

    def metrics(self) -> dict[str, float]:
        """Return the means of what was counted; a metric that was never seen is left out."""
        known = {TRAIN_LOSS: self.losses, TRAIN_ACCURACY: self.accuracies, HYPERGRADIENT_NORM: self.norms}
        seen = known | self.diagnostics
        return {name: math.fsum(values) / len(values) for name, values in seen.items() if values}


def told_solution(metrics: Mapping[str, float]) -> str:
    """Say how good an implicit hypergradient was: it is as good as the inner solution and the linear solve are.

    Args:
        metrics: Of a report: means over the outer steps since the one before.

    Returns:
        One line; empty if the estimator solves no linear system.
    """
    if RESIDUAL not in metrics:
        return ""
    norm = metrics.get(INNER_GRADIENT_NORM, math.nan)
    return f"implicit hypergradient: inner gradient's norm {norm:.2g}, relative residual {metrics[RESIDUAL]:.2g}"


def unsolved(metrics: Mapping[str, float], before: Mapping[str, float]) -> str:
    """Say that an implicit hypergradient is not to be trusted, the first time that it is not; empty otherwise."""
    if not metrics.get(RESIDUAL, 0.0) > UNSOLVED or before.get(RESIDUAL, 0.0) > UNSOLVED:
        return ""
    return (
        f"{told_solution(metrics)}: above {UNSOLVED:g} its linear system is not solved. Give outer.hypergradient more "
        "iterations, terms or rank, or another kind; metaloom check compares them"
    )


def _final_accuracies(outcomes: tuple[EpisodeOutcome, ...]) -> list[float]:
    return [one.accuracies[-1] for one in outcomes if one.accuracies]
