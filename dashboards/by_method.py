"""The best trial of each method of a search: accuracy beside the seconds of an adaptation, on the same episodes."""

from dataclasses import dataclass
from typing import Annotated

from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.results import mean_interval, paired_interval
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial_record import TrialRecord


@dataclass(frozen=True, kw_only=True)
class MethodRow:
    """The best trial of one method, where a search has several."""

    method: Annotated[str, "only with several methods: the method; the best one first"]
    trial: Annotated[int, "only with several methods: its best trial, finished if any is"]
    metric: Annotated[str, "only with several methods: `accuracy` or `loss`, of the validation episodes"]
    mean: Annotated[float, "only with several methods: its mean over them"]
    interval: Annotated[tuple[float, float], "only with several methods: [low, high], 95%, of this mean"]
    behind: Annotated[
        tuple[float, float, float] | None,
        "only with several methods: the mean, low and high of what the best method is better by, paired by episodes; "
        "null for the best one, and where the episodes are not the same",
    ]
    adapt_seconds: Annotated[float | None, "only with several methods: seconds to adapt and predict, per episode"]


def method_rows(search: SearchRecord) -> tuple[MethodRow, ...] | None:
    """Return the best trial of each method, the best method first; None where the trials have a single one."""
    best: dict[str, TrialRecord] = {}
    for state in (records.FINISHED, records.STOPPED):
        for trial in ranking.ranked(search, state):
            if trial.config is not None and trial.last is not None and trial.last.scores:
                best.setdefault(str(trial.config.learner.get("method", "custom")), trial)
    if len(best) < 2:
        return None
    ordered = sorted(best.items(), key=lambda item: -_goodness(item[1]))
    first = ordered[0][1]
    return tuple(_row(method, trial, first) for method, trial in ordered)


def _sign(trial: TrialRecord) -> int:
    assert trial.last is not None
    return 1 if trial.last.scored in records.MAXIMIZED else -1


def _goodness(trial: TrialRecord) -> float:
    assert trial.last is not None
    return _sign(trial) * mean_interval(trial.last.scores)[0]


def _row(method: str, trial: TrialRecord, first: TrialRecord) -> MethodRow:
    assert trial.last is not None
    assert first.last is not None
    ours, theirs, metric = trial.last.scores, first.last.scores, trial.last.scored.rpartition("_")[2]
    mean, low, high = mean_interval(ours, metric=metric)
    paired = trial is not first and len(ours) == len(theirs)
    return MethodRow(
        method=method,
        trial=trial.number,
        metric=metric,
        mean=mean,
        interval=(low, high),
        behind=paired_interval(theirs, ours, sign=_sign(trial)) if paired and ours else None,
        adapt_seconds=trial.last.metrics.get(records.ADAPT_SECONDS),
    )
