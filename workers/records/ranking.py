"""Which trials of a search are the best: values, constraints, order and Pareto front, all by the last reports."""

import math
import operator
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from metaloom.workers.records import names
from metaloom.workers.records.configurations import configurations, means, suggested
from metaloom.workers.records.search import SearchRecord, TrialRecord

ENDINGS = ((names.FINISHED,), (names.STOPPED,), (names.RUNNING, names.WAITING))  # the surer ones first


def value(search: SearchRecord, trial: TrialRecord, metric: str | None = None) -> float | None:
    """Return ``metric``, by default the first objective, by the trial's last report; None if it has not reported it."""
    if trial.last is None or search.settings is None:
        return None
    return trial.last.metrics.get(metric or search.settings.objectives[0].metric)


def violation(search: SearchRecord, trial: TrialRecord) -> float:
    """Return by how much a trial breaks the constraints in all; 0 if it keeps them, infinite before it reports."""
    constraints = search.settings.constraints if search.settings else ()
    metrics = trial.last.metrics if trial.last else {}
    return sum(max(0.0, one.violation(metrics)) for one in constraints)


@dataclass(frozen=True)
class JudgedConfiguration:
    """A configuration as it is compared with others: by the means of its trials.

    Attributes:
        trial: The first of its trials that count.
        scores: Of each objective, of which larger is better.
        violation: Of the constraints, by the mean of the trials' metrics.
        lacks: Whether fewer trials count than ``search.repeats`` asks for.
    """

    trial: TrialRecord
    scores: list[float]
    violation: float
    lacks: bool


def best(search: SearchRecord) -> TrialRecord | None:
    """Return the best trial that keeps all constraints, or None: the one that ``metaloom show`` stars.

    It is a finished one; where none has finished, a stopped one; where none has ended, one that has reported. Of
    several trials of the same knobs it is the first, and their mean is judged.
    """
    for states in ENDINGS:
        first = next(iter(_ordered(search, *states)), None)
        if first is not None:
            return first.trial if first.violation == 0 else None
    return None


def ranked(search: SearchRecord, *states: str) -> list[TrialRecord]:
    """List the trials that have a value, one of each configuration: whole and feasible ones first, then by the mean.

    Ties go by the first objective, then to the earliest. They are in any of ``states``; by default the finished ones.
    """
    return [judged.trial for judged in _ordered(search, *(states or (names.FINISHED,)))]


def judged_value(search: SearchRecord, trial: TrialRecord) -> float | None:
    """Return the first objective of a trial's configuration: the mean over its trials in the same state."""
    mine = next((one for one in configurations(search) if trial in one.trials), None)
    values = [value(search, one) for one in (mine.in_state(trial.state) if mine else [trial])]
    known = [one for one in values if one is not None]
    return (known[0] if len(known) == 1 else statistics.fmean(known)) if known else None


def pareto_front(search: SearchRecord) -> list[TrialRecord]:
    """List the finished, feasible trials that no other such trial beats in every objective, by number."""
    scored = [(one.trial, one.scores) for one in _judged(search, names.FINISHED) if one.violation == 0]
    return [
        trial
        for trial, mine in scored
        if not any(other != mine and all(map(operator.ge, other, mine)) for _, other in scored)
    ]


def without_gain(search: SearchRecord) -> int:
    """Return how many suggestions, by number, have ended in a row since the last one that brought a gain.

    A gain is a finished, feasible trial that none before it equals or beats in every objective. What was
    begun before the search was extended counts no more.
    """
    scores = {one.trial.number: one.scores for one in _judged(search, names.FINISHED) if one.violation == 0}
    best, count = list[list[float]](), 0
    for trial in suggested(search):
        if not trial.ended:
            continue
        mine = scores.get(trial.number)
        gains = mine is not None and not any(all(map(operator.ge, other, mine)) for other in best)
        best += [mine] if mine is not None else []
        count = 0 if gains else count + (trial.number >= search.extended_at)
    return count


def has_no_gain(search: SearchRecord) -> bool:
    """Return whether a search begins no further trial because the last ones have brought no gain."""
    patience = search.settings.patience if search.settings else None
    return patience is not None and without_gain(search) >= patience


def _ordered(search: SearchRecord, *states: str) -> list[JudgedConfiguration]:
    """Return the configurations, the best first."""
    judged = _judged(search, *states)
    return sorted(judged, key=lambda one: (one.lacks, one.violation, -one.scores[0], one.trial.number))


def _judged(search: SearchRecord, *states: str) -> list[JudgedConfiguration]:
    """Judge each configuration by its trials in any of ``states`` of which every objective is a number."""
    repeats, found = search.settings.repeats if search.settings else 1, []
    for configuration in configurations(search):
        pairs = [(trial, scores) for trial in configuration.in_state(*states) if (scores := _scores(search, trial))]
        if pairs:
            broken = _violation_of([trial for trial, _ in pairs], search)
            found.append(
                JudgedConfiguration(pairs[0][0], means([scores for _, scores in pairs]), broken, len(pairs) < repeats)
            )
    return found


def _violation_of(trials: Sequence[TrialRecord], search: SearchRecord) -> float:
    """Return by how much the means of some trials' metrics break the constraints."""
    if len(trials) == 1 or search.settings is None:
        return violation(search, trials[0])
    rows = [trial.last.metrics for trial in trials if trial.last]
    mean = {name: statistics.fmean(row[name] for row in rows) for name in rows[0] if all(name in row for row in rows)}
    return sum(max(0.0, one.violation(mean)) for one in search.settings.constraints)


def _scores(search: SearchRecord, trial: TrialRecord) -> list[float]:
    """Return a trial's scores, of which larger is better; empty if an objective is missing or NaN."""
    objectives = search.settings.objectives if search.settings else ()
    metrics = trial.last.metrics if trial.last else {}
    scores = [one.score(metrics) for one in objectives if one.metric in metrics]
    return scores if len(scores) == len(objectives) and not any(map(math.isnan, scores)) else []
