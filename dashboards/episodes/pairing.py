"""Two trials on the same episodes: the mean difference and its 95% interval, as ``metaloom compare`` has it."""

from dataclasses import dataclass

from metaloom.dashboards.rows import ComparisonRow
from metaloom.workers.records import names as records
from metaloom.workers.records.results import paired_interval
from metaloom.workers.records.trial_record import TrialRecord


@dataclass(frozen=True)
class EpisodePairing:
    """By how much the first trial is better than the second, above 0 where it is.

    Attributes:
        phase: Of the episodes.
        metric: Of the difference: of accuracies, or of losses with the sign turned.
        episodes: How many both have.
        mean: Of the differences.
        low: Lower end of the mean's 95% interval.
        high: Upper end.
    """

    phase: str
    metric: str
    episodes: int
    mean: float
    low: float
    high: float


def validation_pairing(ours: TrialRecord, theirs: TrialRecord) -> EpisodePairing | None:
    """Return the difference on the validation episodes of the last reports; None where they are not the same."""
    if not (ours.last and theirs.last and len(ours.last.scores) == len(theirs.last.scores) > 1):
        return None
    metric = ours.last.scored
    sign = 1 if metric in records.MAXIMIZED else -1
    mean, low, high = paired_interval(ours.last.scores, theirs.last.scores, sign=sign)
    return EpisodePairing(records.VALIDATION, metric.rpartition("_")[2], len(ours.last.scores), mean, low, high)


def test_pairing(compared: ComparisonRow) -> EpisodePairing | None:
    """Return the difference of the first to the second trial of a comparison; None of a single episode."""
    better = compared.contenders[1].better_than_first
    if better is None or better.interval is None:
        return None
    return EpisodePairing(records.TEST, compared.metric, compared.episodes, better.mean, *better.interval)
