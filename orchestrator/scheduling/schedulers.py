"""Which trials to stop early: pure functions of the journalled reports.

No scheduler keeps anything between two calls, so a replay of the journal gives
back every rung. ``judge`` is called right after a report has been applied to the
state: the reports of the other trials are those that came before it.

- asha: Li et al., 2018, https://arxiv.org/abs/1810.05934, the stopping rule: at each rung
  (``grace_steps * reduction_factor^k``) a trial goes on if it is in the best 1/reduction_factor of
  those seen there so far.
- hyperband: the same within brackets whose first rung is later and later; trial i is in bracket i mod brackets.
- median: Golovin et al., 2017 (Vizier), section 3.2.2: a trial stops if its best value so far is below
  the median of the other trials' running averages.
- paired: all trials see the same validation episodes, so a trial is stopped when a one-sided test on the
  per-episode differences to the best trial at the same rung says that it is worse.
- pbt: Jaderberg et al., 2017, https://arxiv.org/abs/1711.09846: population.py.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from metaloom.learners.errors import unknown
from metaloom.learners.registry import Registry
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.state import Objective, SearchState, TrialRecord
from metaloom.workers.records import names as records

CONTINUE, STOP, PAUSE = "continue", "stop", "pause"


@dataclass(frozen=True)
class Verdict:
    """What is to become of a trial after a report: ``continue``, ``stop`` or ``pause``, and why."""

    action: str = CONTINUE
    reason: str = ""


@dataclass(frozen=True)
class Exploit:
    """A trial of a population takes over a better one's checkpoint and knobs.

    Attributes:
        trial: Who takes over.
        donor: From whom; both stand at ``step``.
        generation: Number of the perturbation, from 1.
        params: The donor's parameters, the real ones perturbed.
    """

    trial: int
    donor: int
    step: int
    generation: int
    params: Mapping[str, Any]


class Scheduler(Protocol):
    """Judges reports; holds settings only."""

    def judge(self, state: SearchState, trial: TrialRecord) -> Verdict:
        """Say whether ``trial`` goes on after its last report."""
        ...

    def exploits(self, state: SearchState, *, seed: int) -> Sequence[Exploit]:
        """Return what a complete generation leads to; empty unless one has just been completed."""
        ...

    def may_start(self, state: SearchState, trial: TrialRecord) -> bool:
        """Say whether a waiting trial may go on now."""
        ...


SCHEDULERS: Registry[Callable[..., Scheduler]] = Registry("scheduler")


class _Stopper:
    """A scheduler without generations: every waiting trial may go on."""

    def exploits(self, state: SearchState, *, seed: int) -> Sequence[Exploit]:
        """Return nothing: there is no population."""
        return ()

    def may_start(self, state: SearchState, trial: TrialRecord) -> bool:
        """Let every trial go on."""
        return True


@SCHEDULERS.register("none")
@dataclass(frozen=True)
class RunAll(_Stopper):
    """Every trial runs to its end."""

    def judge(self, state: SearchState, trial: TrialRecord) -> Verdict:
        """Go on."""
        return Verdict()


@SCHEDULERS.register("asha")
@dataclass(frozen=True)
class ASHA(_Stopper):
    """Successive halving without waiting."""

    grace_steps: int | None = None  # None: the first validation
    reduction_factor: int = 3

    def judge(self, state: SearchState, trial: TrialRecord) -> Verdict:
        """Stop a trial that is not among the best 1/reduction_factor at a rung it has just passed."""
        others = [other for other in state.trials.values() if other is not trial]
        return _judge_by_rungs(state, trial, others, first_steps(self.grace_steps, trial), self.reduction_factor)


@SCHEDULERS.register("hyperband")
@dataclass(frozen=True)
class Hyperband(_Stopper):
    """ASHA in brackets that trust early values less and less."""

    grace_steps: int | None = None
    reduction_factor: int = 3
    brackets: int = 3

    def judge(self, state: SearchState, trial: TrialRecord) -> Verdict:
        """Judge the trial among those of its bracket."""
        bracket = trial.number % self.brackets
        grace = first_steps(self.grace_steps, trial) * self.reduction_factor**bracket
        others = [
            other for other in state.trials.values() if other is not trial and other.number % self.brackets == bracket
        ]
        return _judge_by_rungs(state, trial, others, grace, self.reduction_factor)


@SCHEDULERS.register("median")
@dataclass(frozen=True)
class Median(_Stopper):
    """Stop what is below the median of the others' running averages."""

    grace_steps: int | None = None
    startup_trials: int = 4

    def judge(self, state: SearchState, trial: TrialRecord) -> Verdict:
        """Stop the trial if its best value so far is below that median."""
        if trial.step < first_steps(self.grace_steps, trial):
            return Verdict()
        objective = objective_of(state)
        averages = []
        for other in state.trials.values():
            seen = [objective.score(report) for report in other.reports if report.step <= trial.step]
            if other is not trial and seen and other.step >= trial.step:
                averages.append(statistics.fmean(seen))
        if len(averages) < self.startup_trials:
            return Verdict()
        median, best = statistics.median(averages), max(objective.score(report) for report in trial.reports)
        if best < median:
            return Verdict(STOP, f"its best {objective.metric} so far is worse than the median at step {trial.step}")
        return Verdict()


@SCHEDULERS.register("paired")
@dataclass(frozen=True)
class Paired(_Stopper):
    """Stop what is significantly worse than the best, episode by episode.

    Attributes:
        confidence: 1 minus the chance, at one rung, of stopping a trial that is as good as the best.
    """

    grace_steps: int | None = None
    confidence: float = 0.95

    def judge(self, state: SearchState, trial: TrialRecord) -> Verdict:
        """Compare with the best other trial at each rung just passed; the rungs double."""
        mine = trial.reports[-1]
        sign = 1.0 if records.VALIDATION_ACCURACY in mine.metrics else -1.0  # what ``scores`` are of
        for rung in _passed(trial, _rungs(first_steps(self.grace_steps, trial), 2, trial.step)):
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
                said = f"worse than trial {-number} on {pairs} paired episodes (p = {chance:.2g}) at rung {rung}"
                return Verdict(STOP, said)
        return Verdict()


def paired_t(differences: Sequence[float]) -> float:
    """Return the one-sided p-value of Student's paired test that the mean difference is above 0."""
    from scipy.special import stdtr  # imported late: the command line's help must not wait for scipy

    count, mean = len(differences), statistics.fmean(differences)
    deviation = statistics.stdev(differences)
    if deviation == 0:
        return 0.0 if mean > 0 else 1.0
    return float(stdtr(count - 1, -mean / (deviation / math.sqrt(count))))


def build_scheduler(section: Mapping[str, Any]) -> Scheduler:
    """Build the scheduler of a search section: ``kind`` and its options.

    Raises:
        LearnerError: No scheduler has that name.
        SearchError: An option does not exist.
    """
    options = {key: value for key, value in section.items() if key != "kind" and value is not None}
    build = SCHEDULERS[str(section["kind"])]
    known = [one.name for one in fields(build)]  # type: ignore[arg-type]  # every entry is a dataclass
    for name in options:
        if name not in known:
            raise SearchError(f"scheduler {section['kind']}: {unknown('option', name, known)}")
    return build(**options)


def objective_of(state: SearchState) -> Objective:
    """Return the objective that trials are judged by: the first."""
    assert state.settings is not None  # a search without its first event has no reports to judge
    return state.settings.objectives[0]


def first_steps(given: int | None, trial: TrialRecord) -> int:
    """Return ``given``, or if it is None the step of the trial's first report."""
    return given or max(1, trial.reports[0].step)


def _rungs(grace: int, reduction: int, upto: int) -> Iterator[int]:
    """Yield grace, grace * reduction, ... up to ``upto``."""
    rung = grace
    while rung <= upto:
        yield rung
        rung *= reduction


def _passed(trial: TrialRecord, rungs: Iterator[int]) -> list[int]:
    """Return the rungs that the last report has passed and the one before had not."""
    before = trial.reports[-2].step if len(trial.reports) > 1 else 0
    return [rung for rung in rungs if before < rung <= trial.step]


def _judge_by_rungs(
    state: SearchState, trial: TrialRecord, others: Sequence[TrialRecord], grace: int, reduction: int
) -> Verdict:
    objective = objective_of(state)
    mine = objective.score(trial.reports[-1])
    for rung in _passed(trial, _rungs(grace, reduction, trial.step)):
        seen = sorted(objective.score(report) for other in others if (report := other.report_at(rung)))
        if seen and mine < _quantile(seen, 1 - 1 / reduction):
            return Verdict(STOP, f"not in the best 1/{reduction} of {len(seen) + 1} trials at rung {rung}")
    return Verdict()


def _quantile(ordered: Sequence[float], fraction: float) -> float:
    """Return the quantile by linear interpolation between the order statistics."""
    position = fraction * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])
