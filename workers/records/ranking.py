"""Which trials of a search are the best: values, constraints, order and Pareto front, all by the last reports."""

import math
import operator

from metaloom.workers.records import names
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


def best(search: SearchRecord) -> TrialRecord | None:
    """Return the best trial that keeps all constraints, or None: the one that ``metaloom show`` stars.

    It is a finished one; where none has finished, a stopped one; where none has ended, one that has reported.
    """
    for states in ENDINGS:
        first = next(iter(ranked(search, *states)), None)
        if first is not None:
            return first if violation(search, first) == 0 else None
    return None


def ranked(search: SearchRecord, *states: str) -> list[TrialRecord]:
    """List the trials that have a value: feasible ones first, then by the first objective, then the earliest.

    They are in any of ``states``; by default the finished ones.
    """
    scored = _scored(search, *(states or (names.FINISHED,)))
    order = [(violation(search, trial), -scores[0], trial.number) for trial, scores in scored]
    trials = {trial.number: trial for trial, _ in scored}
    return [trials[number] for _, _, number in sorted(order)]


def pareto_front(search: SearchRecord) -> list[TrialRecord]:
    """List the finished, feasible trials that no other such trial beats in every objective, by number."""
    scored = [pair for pair in _scored(search, names.FINISHED) if violation(search, pair[0]) == 0]
    return [
        trial
        for trial, mine in scored
        if not any(other != mine and all(map(operator.ge, other, mine)) for _, other in scored)
    ]


def _scored(search: SearchRecord, *states: str) -> list[tuple[TrialRecord, list[float]]]:
    """Pair each trial of which every objective is a number with its scores, of which larger is better."""
    objectives = search.settings.objectives if search.settings else ()
    pairs = []
    for trial in search.in_state(*states):
        metrics = trial.last.metrics if trial.last else {}
        scores = [one.score(metrics) for one in objectives if one.metric in metrics]
        if objectives and len(scores) == len(objectives) and not any(map(math.isnan, scores)):
            pairs.append((trial, scores))
    return pairs
