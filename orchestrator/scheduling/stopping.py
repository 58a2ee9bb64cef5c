"""Early stopping: pure functions of the journalled reports.

- asha: Li et al., 2018, https://arxiv.org/abs/1810.05934, the stopping rule: at each rung
  (``grace_steps * reduction_factor^k``) a trial goes on if it is in the best 1/reduction_factor of
  the trials at this rung so far.
- hyperband: the same within brackets, each with a later first rung; trial i is in bracket i mod brackets.
- median: Golovin et al., 2017 (Vizier), section 3.2.2: a trial stops if its best value so far is below
  the median of the other trials' running averages.
- paired: all trials have the same validation episodes, so a trial stops when a one-sided test on the
  per-episode differences to the best trial at the same rung finds it worse.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from metaloom.learners.domains import Bounds, Int, Real
from metaloom.orchestrator.scheduling.base import STOP, Count, Scheduler, Steps, Verdict, first_steps, objective_of
from metaloom.search_spaces.sections.strategies import SCHEDULERS
from metaloom.workers.records import names as records
from metaloom.workers.records.results import quantile
from metaloom.workers.records.search import SearchRecord, TrialRecord

Reduction = Annotated[int, Int(2, 10), Bounds(at_least=2)]


@SCHEDULERS.register("none")
@dataclass(frozen=True)
class RunAll(Scheduler):
    """Every trial runs to its end."""

    one_objective: ClassVar[bool] = False

    def judge(self, state: SearchRecord, trial: TrialRecord) -> Verdict:
        """Go on."""
        return Verdict()


@SCHEDULERS.register("asha")
@dataclass(frozen=True)
class ASHA(Scheduler):
    """Asynchronous successive halving: only the best of each rung go on.

    Attributes:
        grace_steps: Outer steps to the first rung; null: the first validation.
        reduction_factor: One trial in so many goes on, and the next rung is so many times as far.
    """

    grace_steps: Steps = None
    reduction_factor: Reduction = 3

    def judge(self, state: SearchRecord, trial: TrialRecord) -> Verdict:
        """Stop a trial that is not among the best 1/reduction_factor at a rung that it has just passed."""
        others = [other for other in state.trials.values() if other is not trial]
        return _judge_by_rungs(state, trial, others, first_steps(self.grace_steps, trial), self.reduction_factor)

    def rungs(self, state: SearchRecord) -> Sequence[int]:
        """Return grace_steps * reduction_factor^k."""
        return _reached(state, self.grace_steps, self.reduction_factor)


@SCHEDULERS.register("hyperband")
@dataclass(frozen=True)
class Hyperband(Scheduler):
    """Successive halving in several brackets, from eager to patient.

    Attributes:
        grace_steps: Outer steps to the first rung of the first bracket; null: the first validation.
        reduction_factor: One trial in so many goes on, and the next rung is so many times as far.
        brackets: The number of brackets; trial i is in bracket i mod brackets.
    """

    grace_steps: Steps = None
    reduction_factor: Reduction = 3
    brackets: Count = 3

    def judge(self, state: SearchRecord, trial: TrialRecord) -> Verdict:
        """Judge the trial among those of its bracket."""
        bracket = trial.number % self.brackets
        grace = first_steps(self.grace_steps, trial) * self.reduction_factor**bracket
        others = [
            other for other in state.trials.values() if other is not trial and other.number % self.brackets == bracket
        ]
        return _judge_by_rungs(state, trial, others, grace, self.reduction_factor)

    def rungs(self, state: SearchRecord) -> Sequence[int]:
        """Return the rungs of all brackets: those of a later one are among those of the first."""
        return _reached(state, self.grace_steps, self.reduction_factor)


@SCHEDULERS.register("median")
@dataclass(frozen=True)
class Median(Scheduler):
    """A trial stops if it is worse than the median of the others' running averages.

    Attributes:
        grace_steps: No trial stops before so many outer steps; null: the first validation.
        startup_trials: No trial stops before so many others have reached its step.
    """

    grace_steps: Steps = None
    startup_trials: Count = 4

    def judge(self, state: SearchRecord, trial: TrialRecord) -> Verdict:
        """Stop the trial if its best value so far is below that median."""
        if trial.step < first_steps(self.grace_steps, trial):
            return Verdict()
        objective = objective_of(state)
        averages = []
        for other in state.trials.values():
            scores = [objective.score(report.metrics) for report in other.reports if report.step <= trial.step]
            if other is not trial and scores and other.step >= trial.step:
                averages.append(statistics.fmean(scores))
        if len(averages) < self.startup_trials:
            return Verdict()
        median, best = statistics.median(averages), max(objective.score(report.metrics) for report in trial.reports)
        if best < median:
            return Verdict(STOP, f"its best {objective.metric} so far is worse than the median at step {trial.step}")
        return Verdict()


@SCHEDULERS.register("paired")
@dataclass(frozen=True)
class Paired(Scheduler):
    """A trial stops when a paired test on the same validation episodes finds it worse than the best.

    Attributes:
        grace_steps: Outer steps to the first rung; the rungs double; null: the first validation.
        confidence: 1 minus the probability, at one rung, of stopping a trial that is as good as the best.
    """

    compares_episodes: ClassVar[bool] = True
    grace_steps: Steps = None
    confidence: Annotated[float, Real(0.8, 0.99, per=()), Bounds(above=0.5, below=1)] = 0.95

    def judge(self, state: SearchRecord, trial: TrialRecord) -> Verdict:
        """Compare with the best other trial at each rung just passed; the rungs double."""
        mine = trial.reports[-1]
        sign = 1.0 if records.VALIDATION_ACCURACY in mine.metrics else -1.0  # ``scores`` are accuracies or losses
        for rung in _passed(trial, first_steps(self.grace_steps, trial), 2):
            rivals = [
                (sign * statistics.fmean(report.scores), -other.number, report.scores)
                for other in state.trials.values()
                if other is not trial and (report := other.report_at(rung)) and len(report.scores) == len(mine.scores)
            ]
            if not rivals or len(mine.scores) < 2:
                continue
            _, number, best = max(rivals)
            chance = paired_t([sign * (theirs - own) for own, theirs in zip(mine.scores, best, strict=True)])
            if chance < 1 - self.confidence:
                pairs = len(mine.scores)
                reason = f"worse than trial {-number} on {pairs} paired episodes (p = {chance:.2g}) at rung {rung}"
                return Verdict(STOP, reason)
        return Verdict()

    def rungs(self, state: SearchRecord) -> Sequence[int]:
        """Return grace_steps * 2^k."""
        return _reached(state, self.grace_steps, 2)


def paired_t(differences: Sequence[float]) -> float:
    """Return the one-sided p-value of Student's paired test that the mean difference is above 0."""
    from scipy.special import stdtr  # the help does not need it

    count, mean = len(differences), statistics.fmean(differences)
    deviation = statistics.stdev(differences)
    if deviation == 0:
        return 0.0 if mean > 0 else 1.0
    return float(stdtr(count - 1, -mean / (deviation / math.sqrt(count))))


def _passed(trial: TrialRecord, grace: int, reduction: int) -> Iterator[int]:
    """Return the rungs grace, grace * reduction, ... that lie between the last report and the one before it."""
    before = trial.reports[-2].step if len(trial.reports) > 1 else 0
    return (rung for rung in _rungs(grace, reduction, trial.step) if rung > before)


def _rungs(grace: int, reduction: int, last: int) -> Iterator[int]:
    """Yield grace, grace * reduction, ... up to ``last``."""
    rung = grace
    while rung <= last:
        yield rung
        rung *= reduction


def _reached(state: SearchRecord, given: int | None, reduction: int) -> list[int]:
    """Return the rungs that any trial has reached; without a given grace the first one is that of the first trial."""
    reported = [trial for _, trial in sorted(state.trials.items()) if trial.reports]
    if not reported:
        return []
    return list(_rungs(first_steps(given, reported[0]), reduction, max(trial.step for trial in reported)))


def _judge_by_rungs(
    state: SearchRecord, trial: TrialRecord, others: Sequence[TrialRecord], grace: int, reduction: int
) -> Verdict:
    objective = objective_of(state)
    mine = objective.score(trial.reports[-1].metrics)
    for rung in _passed(trial, grace, reduction):
        scores = [objective.score(report.metrics) for other in others if (report := other.report_at(rung))]
        if scores and mine < quantile(scores, 1 - 1 / reduction):
            return Verdict(STOP, f"not in the best 1/{reduction} of {len(scores) + 1} trials at rung {rung}")
    return Verdict()
