"""The progress of a trial: all of its state that is not a tensor."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from metaloom.learners.base import MetaStep
from metaloom.learners.hypergradients.implicit import UNSOLVED
from metaloom.workers.records import names
from metaloom.workers.records.results import by_source, mean_interval
from metaloom.workers.records.trial import Plain, Report
from metaloom.workers.scoring import Evaluation

VALIDATED = (
    names.VALIDATION_ACCURACY,
    names.VALIDATION_LOSS,
    names.VALIDATION_RMSE,
    names.VALIDATION_CONSTANT,
    names.ADAPT_SECONDS,
)
UNSOLVED_METRIC = f"{names.DIAGNOSTIC}{UNSOLVED}"
MOST_UNSOLVED = 1e-3  # of the outer loss; beyond it the hypergradient's error is of some percent
MOST_RESIDUAL = 0.5  # of the right side's norm: the rest of the solution is then mostly missing


@dataclass
class Progress(Plain):
    """The facts that a checkpoint stores in addition to tensors.

    Attributes:
        step: Outer steps done.
        episodes: Episodes so far, of training and validation.
        seconds: Time spent, all attempts together; ``recording_seconds`` of it on episode records.
        costs: Other metrics of what it has cost so far: the seconds of its parts, and memory.
        stale: Validations since the best one.
        retraining: The learner section with its relaxed cells made discrete, once they are retrained.
        solution_warned: Whether the trial has warned that its implicit hypergradient is unreliable.
    """

    step: int = 0
    episodes: int = 0
    seconds: float = 0.0
    recording_seconds: float = 0.0
    costs: dict[str, float] = field(default_factory=dict)
    stale: int = 0
    best: Report | None = None
    last: Report | None = None
    finished: bool = False
    retraining: Mapping[str, Any] | None = None
    solution_warned: bool = False

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Progress":
        """Read the values of ``to_json``."""
        reports = {name: Report.from_json(document[name]) for name in ("best", "last") if document[name]}
        return cls(**{**document, **reports})

    def is_best(self, metric: str, report: Report) -> bool:
        """Return whether ``report`` is the best so far, and keep it if it is."""
        incumbent = self.best.metrics[metric] if self.best else None
        if names.is_better(metric, report.metrics[metric], incumbent):
            self.best, self.stale = report, 0
            return True
        self.stale += 1
        return False

    def ended(self, patience: int | None, *, last: int) -> tuple[str, ...]:
        """Note whether nothing is left to do after a validation; return the note of an early stop."""
        early = patience is not None and self.stale >= patience and self.step < last
        self.finished |= early or self.step >= last
        return (f"stopped early at step {self.step}: {self.stale} validations without improvement",) if early else ()

    def first_warnings(self, metrics: Mapping[str, float]) -> tuple[str, ...]:
        """Return the warning of an unreliable implicit hypergradient, once in a trial."""
        warning = "" if self.solution_warned else solution_warning(metrics)
        self.solution_warned |= bool(warning)
        return (warning,) if warning else ()

    def last_warnings(self, metrics: Mapping[str, float]) -> tuple[str, ...]:
        """Return the warnings of a trial that has finished with these metrics; none before."""
        return constant_warning(metrics) if self.finished else ()


@dataclass
class Tally:
    """The metrics of the outer steps since the last validation, by name."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, meta: MetaStep, norm: float, sources: Sequence[str] = ()) -> None:
        """Count one outer step; ``sources`` are the data sets of its episodes, where there are several."""
        accuracies = [outcome.accuracies[-1] for outcome in meta.outcomes if outcome.accuracies]
        measured = {names.TRAIN_LOSS: [meta.loss], names.TRAIN_ACCURACY: accuracies, names.HYPERGRADIENT_NORM: [norm]}
        measured |= {f"{names.DIAGNOSTIC}{name}": [number] for name, number in meta.diagnostics.items()}
        if any(sources):
            for source, outcome in zip(sources, meta.outcomes, strict=True):
                measured.setdefault(of_source(names.TRAIN_LOSS, source), []).append(outcome.losses[-1])
        for name, numbers in measured.items():
            self.values.setdefault(name, []).extend(numbers)

    def metrics(self) -> dict[str, float]:
        """Return the mean of each metric that was measured."""
        return {name: math.fsum(values) / len(values) for name, values in self.values.items() if values}


def scored(evaluation: Evaluation) -> dict[str, Any]:
    """Return the scores of a validation as a report has them, those of each data set too where there are several."""
    each = by_source([one.source for one in evaluation.facts], evaluation.scores, evaluation.metric)
    return {"interval": evaluation.interval, "scores": evaluation.scores, "by_source": each}


def of_source(metric: str, source: str) -> str:
    """Name a metric of one data set."""
    return f"{metric}{names.OF_SOURCE}{source}"


def with_validation_of(report: Report, best: Report) -> Report:
    """Return ``report`` with the validation of ``best``: the trial ends with that one's meta-knowledge."""
    validated = {name: one for name, one in best.metrics.items() if name.partition(names.OF_SOURCE)[0] in VALIDATED}
    metrics = {**report.metrics, **validated}
    return replace(report, metrics=metrics, interval=best.interval, scores=best.scores, by_source=best.by_source)


def validated(metric: str, evaluation: Evaluation, progress: Progress, leaves: Iterable[Tensor]) -> dict[str, float]:
    """Return the metrics of a validation; ``leaves`` are what the trial learns and keeps."""
    return {
        metric: evaluation.mean,
        names.VALIDATION_LOSS: mean_interval(evaluation.losses)[0],
        names.SECONDS: progress.seconds,
        names.ADAPT_SECONDS: evaluation.seconds,
        # whole numbers, such as a count of steps, are no parameters
        names.PARAMETERS: float(sum(leaf.numel() for leaf in leaves if leaf.is_floating_point())),
        names.RECORDING_SECONDS: progress.recording_seconds,
        **progress.costs,
        **_beside_constant(evaluation),
        **{of_source(metric, source): one[0] for source, one in scored(evaluation)["by_source"].items()},
    }


def _beside_constant(evaluation: Evaluation) -> dict[str, float]:
    """Return what a validation of a regression says beside its loss, as metrics."""
    rmse = None if evaluation.units is None else evaluation.units.rmse
    found = {names.VALIDATION_CONSTANT: evaluation.constant, names.VALIDATION_RMSE: rmse}
    return {name: value for name, value in found.items() if value is not None}


def constant_warning(metrics: Mapping[str, float]) -> tuple[str, ...]:
    """Return the warning that a trial has ended with a loss above that of predicting a constant, if it has."""
    loss, constant = metrics.get(names.VALIDATION_LOSS, math.nan), metrics.get(names.VALIDATION_CONSTANT, math.nan)
    if not loss > constant:
        return ()
    return (
        f"validation loss {loss:.4g} is worse than {constant:.4g}, that of predicting the mean target of the support "
        "set: nothing that helps was learned",
    )


def solution_text(metrics: Mapping[str, float]) -> str:
    """Describe the inner solution and the linear solve of an implicit hypergradient in one line.

    ``metrics`` are a report's: means over the outer steps since the one before. Empty for other estimators.
    """
    if names.RESIDUAL not in metrics:
        return ""
    norm, share = (metrics.get(name, math.nan) for name in (names.INNER_GRADIENT_NORM, UNSOLVED_METRIC))
    return (
        f"implicit hypergradient: inner gradient's norm {norm:.2g} (solving the inner problem to its end would change "
        f"the outer loss by {share:.2g} of itself), relative residual {metrics[names.RESIDUAL]:.2g}"
    )


def solution_warning(metrics: Mapping[str, float]) -> str:
    """Explain why an implicit hypergradient is unreliable, with advice; empty if it is reliable."""
    advice = []
    if metrics.get(UNSOLVED_METRIC, 0.0) > MOST_UNSOLVED:
        advice.append(
            f"The inner problem is not solved (at most {MOST_UNSOLVED:g} of the outer loss may depend on it): give "
            "learner.update more steps or a better rate, raise inner.proximal, or use outer.hypergradient: unroll"
        )
    if metrics.get(names.RESIDUAL, 0.0) > MOST_RESIDUAL:
        advice.append(
            f"Above {MOST_RESIDUAL:g} its linear system is not solved: give outer.hypergradient more iterations, terms "
            "or rank, or another kind"
        )
    return f"{solution_text(metrics)}. {'. '.join(advice)}; metaloom check compares the estimators" if advice else ""
