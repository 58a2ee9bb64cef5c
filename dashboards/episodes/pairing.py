"""Two trials on the same episodes: the mean difference and its 95% interval, as ``metaloom compare`` has it."""

from dataclasses import dataclass
from pathlib import Path

from metaloom.workers.records import names as records
from metaloom.workers.records.results import paired_interval
from metaloom.workers.records.tested import test_scores
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


def pairings(ours: TrialRecord, theirs: TrialRecord, directories: tuple[Path, Path]) -> list[EpisodePairing]:
    """Return the paired differences of two trials, on the validation episodes of their last reports and on the test.

    The episodes of a phase are left out where they are not the same.
    """
    found, metric = [], records.VALIDATION_LOSS
    if ours.last and theirs.last and len(ours.last.scores) == len(theirs.last.scores) > 1:
        metric = ours.last.scored
        sign = 1 if metric in records.MAXIMIZED else -1
        found.append(_paired(records.VALIDATION, metric, ours.last.scores, theirs.last.scores, sign))
    tests = [test_scores(one) if (one / records.CONFIG_FILE).is_file() else {} for one in directories]
    if tests[0].keys() == tests[1].keys() and len(tests[0]) > 1:
        pairs = list(tests[0].values()), [tests[1][episode] for episode in tests[0]]
        found.append(_paired(records.TEST, metric, *pairs, 1))  # larger is better in both
    return found


def _paired(
    phase: str,
    metric: str,
    ours: "list[float] | tuple[float, ...]",
    theirs: "list[float] | tuple[float, ...]",
    sign: int,
) -> EpisodePairing:
    name = metric.rpartition("_")[2]
    return EpisodePairing(phase, name, len(ours), *paired_interval(ours, theirs, sign=sign))
