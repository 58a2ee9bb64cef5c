"""How far a trial has come: all of its state that is not a tensor."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from metaloom.learners.base import EpisodeOutcome, MetaStep
from metaloom.learners.hypergradients.implicit import UNSOLVED
from metaloom.workers.records import names
from metaloom.workers.records.trial import Report

VALIDATED = (names.VALIDATION_ACCURACY, names.VALIDATION_LOSS, names.ADAPT_SECONDS)
UNSOLVED_METRIC = f"{names.DIAGNOSTIC}{UNSOLVED}"
MOST_UNSOLVED = 1e-3  # of the outer loss; beyond it the hypergradient's error is of some percent
MOST_RESIDUAL = 0.5  # of the right side's norm: the rest of the solution is then mostly missing


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
        solution_warned: Whether the trial has warned that its implicit hypergradient is not to be trusted.
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
    solution_warned: bool = False

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
        if names.is_better(metric, report.metrics[metric], incumbent):
            self.best, self.stale = report, 0
            return True
        self.stale += 1
        return False

    def first_warnings(self, metrics: Mapping[str, float]) -> tuple[str, ...]:
        """Return the warning of an implicit hypergradient that is not to be trusted, once in a trial."""
        warning = "" if self.solution_warned else solution_warning(metrics)
        self.solution_warned |= bool(warning)
        return (warning,) if warning else ()


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
            self.diagnostics.setdefault(f"{names.DIAGNOSTIC}{name}", []).append(number)

    def metrics(self) -> dict[str, float]:
        """Return the means of what was counted; a metric that was never seen is left out."""
        kept = {
            names.TRAIN_LOSS: self.losses,
            names.TRAIN_ACCURACY: self.accuracies,
            names.HYPERGRADIENT_NORM: self.norms,
        }
        every = kept | self.diagnostics
        return {name: math.fsum(values) / len(values) for name, values in every.items() if values}


def with_validation_of(report: Report, best: Report) -> Report:
    """Return ``report`` with the validation of another one: the trial ends with that one's meta-knowledge."""
    validated = {name: best.metrics[name] for name in VALIDATED if name in best.metrics}
    return replace(report, metrics={**report.metrics, **validated}, interval=best.interval, scores=best.scores)


def solution_text(metrics: Mapping[str, float]) -> str:
    """Describe the inner solution and the linear solve that an implicit hypergradient rests on.

    Args:
        metrics: Of a report: means over the outer steps since the one before.

    Returns:
        One line; empty if the estimator does not differentiate at the inner solution.
    """
    if names.RESIDUAL not in metrics:
        return ""
    norm, share = (metrics.get(name, math.nan) for name in (names.INNER_GRADIENT_NORM, UNSOLVED_METRIC))
    return (
        f"implicit hypergradient: inner gradient's norm {norm:.2g} (solving the inner problem to its end would change "
        f"the outer loss by {share:.2g} of itself), relative residual {metrics[names.RESIDUAL]:.2g}"
    )


def solution_warning(metrics: Mapping[str, float]) -> str:
    """Say that an implicit hypergradient is not to be trusted, and what to do; empty where it is."""
    advice = []
    if metrics.get(UNSOLVED_METRIC, 0.0) > MOST_UNSOLVED:
        advice.append(
            f"The inner problem is not solved (at most {MOST_UNSOLVED:g} of the outer loss may hang on it): give "
            "learner.update more steps or a better rate, raise inner.proximal, or use outer.hypergradient: unroll"
        )
    if metrics.get(names.RESIDUAL, 0.0) > MOST_RESIDUAL:
        advice.append(
            f"Above {MOST_RESIDUAL:g} its linear system is not solved: give outer.hypergradient more iterations, terms "
            "or rank, or another kind"
        )
    return f"{solution_text(metrics)}. {'. '.join(advice)}; metaloom check compares the estimators" if advice else ""


def _final_accuracies(outcomes: tuple[EpisodeOutcome, ...]) -> list[float]:
    return [one.accuracies[-1] for one in outcomes if one.accuracies]
