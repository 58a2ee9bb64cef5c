"""The results that commands print as JSON: an evaluation with its intervals, and the check of a hypergradient.

Each field's annotation documents it; ``dashboards/json_page.py`` writes the tables of docs/json.md from these.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

ACCURACY = "accuracy"  # the metric whose values are fractions
INNER_STEPS, PRESENTATIONS = "inner steps", "earlier examples of the class"  # what an evaluation's steps count
SourceMean = tuple[float, float, float, int]  # of a data set: the mean, the ends of its interval, the episodes
QUANTILE = 0.975  # of Student's t: the upper end of a 95% interval


@dataclass(frozen=True)
class StepScore:
    """The score after one number of inner steps."""

    step: Annotated[int, "the number of inner steps; 0 is before adaptation"]
    mean: Annotated[float, "over the episodes, after these steps"]
    low: Annotated[float, "lower end of the mean's 95% interval"]
    high: Annotated[float, "upper end of the mean's 95% interval"]


@dataclass(frozen=True)
class InUnits:
    """The score of a regression in the units of its target."""

    rmse: Annotated[float, "root of the mean squared error, in the units of the target"]
    interval: Annotated[tuple[float, float], "[low, high], 95%"]
    constant_rmse: Annotated[float | None, "that of predicting the mean target of the support set"] = None


@dataclass(frozen=True)
class InductiveScore:
    """The score of a transductive learner where the support set gives batch norm's statistics, not the queries."""

    mean: Annotated[float, "only of a transductive learner: the mean of predicting each query on its own"]
    interval: Annotated[tuple[float, float], "only there: [low, high], 95%, of this mean"]
    better_by: Annotated[
        float, "only there: the mean of the differences, episode by episode; below 0 where it is worse"
    ]
    better_by_interval: Annotated[tuple[float, float], "only there: [low, high], 95%, of this difference"]


@dataclass(frozen=True)
class GeneralizedScore:
    """The score of a zero-shot learner among training classes and new ones together."""

    penalty: Annotated[
        float, "only with `--generalized`: what the training classes' scores are less by, chosen on validation"
    ]
    seen: Annotated[float, "only there: mean accuracy of the training classes, on examples that were held out"]
    unseen: Annotated[float, "only there: mean accuracy of the test classes"]
    harmonic: Annotated[float, "only there: the harmonic mean of both"]
    plain_seen: Annotated[float, "only there: `seen` without the penalty"]
    plain_unseen: Annotated[float, "only there: `unseen` without the penalty"]
    plain_harmonic: Annotated[float, "only there: `harmonic` without the penalty"]


@dataclass(frozen=True)
class EvaluationSummary:
    """The scores of a learner on the episodes of a split."""

    metric: Annotated[str, "`accuracy`, or `loss` in regression and control"]
    mean: Annotated[float, "over the test episodes, after the last inner step"]
    interval: Annotated[tuple[float, float], "[low, high], 95%, of the mean"]
    episodes: Annotated[int, "their number"]
    per_step: tuple[StepScore, ...]
    setting: Annotated[str, "`inductive`, `semi-supervised` or `transductive`"]
    batch_norm: Annotated[str, "its mode, or `none`"]
    split: Annotated[str, "`test`"]
    scores: Annotated[tuple[float, ...], "the score of each episode after the last inner step"]
    seconds: Annotated[float, "for an episode"]
    constant: Annotated[
        float | None, "in regression: the loss of predicting the mean target of the support set, on the same episodes"
    ] = None
    units: Annotated[InUnits | None, "of one standardized target: the score in the target's own units"] = None
    inductive: InductiveScore | None = None
    curve: Annotated[str, "only of sequences: what the steps of `per_step` count, the earlier examples of a class"] = (
        INNER_STEPS
    )
    generalized: GeneralizedScore | None = None


@dataclass(frozen=True)
class Verification:
    """A bundle's test episodes, played again here."""

    metric: Annotated[str, "`accuracy` or `loss`"]
    exported: Annotated[float, "the mean that the bundle was exported with"]
    interval: Annotated[tuple[float, float], "[low, high], 95%, of this mean"]
    mean: Annotated[float, "the mean of the same episodes, played again"]
    episodes: Annotated[int, "their number"]
    other_episodes: Annotated[int, "how many of them consist of other samples: then the data have changed"]
    inside: Annotated[bool, "whether the new mean lies in the interval"]
    bit_equal: Annotated[bool, "whether every score and every loss is equal bit for bit"]
    different: Annotated[int, "how many episodes have another score or loss"]
    largest_difference: Annotated[float, "the largest difference of a score"]

    @property
    def holds(self) -> bool:
        """Whether the episodes are the same, and their mean lies in the interval."""
        return self.inside and not self.other_episodes


@dataclass(frozen=True)
class KnobCheck:
    """A knob's hypergradient compared with central differences."""

    relative_error: Annotated[
        float,
        "distance of 4 directional derivatives from their central differences, relative to these, at the best "
        "displacement; null where the objective does not move with the knob",
    ]
    norm: Annotated[float, "length of the knob's estimated hypergradient"]
    numbers: Annotated[int, "how many numbers the knob learns"]
    approximation: Annotated[str, "what the knob's own gradient leaves out by design, or empty"] = ""


@dataclass(frozen=True)
class EstimatorCheck:
    """One estimator on the same problem."""

    errors: Annotated[Mapping[str, float], "each learned knob's relative error"] = field(default_factory=dict)
    seconds: Annotated[float | None, "time of one hypergradient; null where it is refused"] = None
    peak_bytes: Annotated[int, "the most bytes of tensors that it kept at once"] = 0
    refused: Annotated[str, "why it cannot be used, or empty"] = ""
    diagnostics: Annotated[Mapping[str, float], "the estimator's diagnostics"] = field(default_factory=dict)


def in_units(loss: float, interval: Sequence[float], constant: float | None, deviation: float) -> InUnits:
    """Return a mean squared error of a standardized target in the target's units.

    Args:
        loss: In units of the squared deviation; so are ``interval`` and ``constant``.
        interval: 95%, of the loss.
        constant: The loss of predicting the mean target.
        deviation: The standard deviation that the target was divided by.
    """
    low, high = (deviation * math.sqrt(max(end, 0.0)) for end in interval)
    return InUnits(
        deviation * math.sqrt(loss), (low, high), None if constant is None else deviation * math.sqrt(constant)
    )


def by_source(sources: Sequence[str], scores: Sequence[float], metric: str) -> dict[str, SourceMean]:
    """Return the mean of each data set's scores; nothing where episodes name none."""
    found: dict[str, list[float]] = {}
    for source, score in zip(sources, scores, strict=True):
        found.setdefault(source, []).append(score)
    return {source: (*mean_interval(one, metric=metric), len(one)) for source, one in found.items() if source}


def quantile(values: Sequence[float], share: float) -> float:
    """Return the quantile by linear interpolation between the order statistics.

    It is not finite where an infinite value has a part in it. Raises IndexError without values.
    """
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low, high = ordered[math.floor(position)], ordered[math.ceil(position)]
    return low + (position - math.floor(position)) * (high - low)


def paired_interval(ours: Sequence[float], theirs: Sequence[float], *, sign: int = 1) -> tuple[float, float, float]:
    """Return the mean by which ``ours`` are better than ``theirs`` on the same episodes, and its 95% interval.

    Args:
        ours: A score of each episode.
        theirs: The scores of the same episodes, in the same order.
        sign: 1 where larger scores are better, -1 where smaller ones are.

    Raises:
        ValueError: There are no scores, or their numbers differ.
    """
    return mean_interval([sign * (own - other) for own, other in zip(ours, theirs, strict=True)])


def mean_interval(scores: Sequence[float], *, metric: str = "") -> tuple[float, float, float]:
    """Return the mean and Student's 95% interval of it, t(n - 1) s / sqrt(n) to either side.

    ``s`` is the sample standard deviation (n - 1). The interval of an accuracy (``metric``) is cut at 0 and 1; that of
    one score is (mean, mean). The sums are exact before rounding, so that the order of the episodes does not matter.
    Raises ValueError without scores.
    """
    from scipy.special import stdtrit  # a quarter of a second of import that most commands do not need

    number = len(scores)
    if not number:
        raise ValueError("no scores to take the mean of")
    if not all(map(math.isfinite, scores)):
        return math.nan, math.nan, math.nan
    mean = math.fsum(scores) / number
    if number == 1:
        return mean, mean, mean
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (number - 1))
    half = float(stdtrit(number - 1, QUANTILE)) * deviation / math.sqrt(number)
    low, high = mean - half, mean + half
    return (mean, max(low, 0.0), min(high, 1.0)) if metric == ACCURACY else (mean, low, high)
