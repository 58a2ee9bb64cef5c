"""What a scheduler is: a pure function of the journalled reports, which says what is to become of a trial."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

from metaloom.learners.domains import Int
from metaloom.learners.fields import make_config
from metaloom.search_spaces.sections.strategies import KIND, SchedulerKind, schedulers
from metaloom.workers.records.objectives import Objective
from metaloom.workers.records.search import SearchRecord, TrialRecord

CONTINUE, STOP, PAUSE = "continue", "stop", "pause"
Count = Annotated[int, Int(1, 1000, log=True)]
Steps = Annotated[int | None, Int(1, 10_000_000, log=True)]


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


class Scheduler(SchedulerKind, ABC):
    """Judges reports; a frozen dataclass that holds settings only.

    ``judge`` is called right after a report has been applied to the state: the reports of the other trials are those
    that came before it. Nothing is kept between two calls, so a replay of the journal gives back every decision.
    """

    @abstractmethod
    def judge(self, state: SearchRecord, trial: TrialRecord) -> Verdict:
        """Say whether ``trial`` goes on after its last report."""

    def exploits(self, state: SearchRecord, *, seed: int) -> Sequence[Exploit]:
        """Return what a complete generation leads to; empty where there is no population, or none is complete."""
        return ()

    def may_start(self, state: SearchRecord, trial: TrialRecord) -> bool:
        """Say whether a waiting trial may go on now; without a population every one may."""
        return True


def build_scheduler(section: Mapping[str, Any]) -> Scheduler:
    """Build the scheduler of a search section: ``kind`` and its settings.

    Raises:
        LearnerError: No scheduler has that name, or a setting does not exist or fit.
    """
    kind = str(section[KIND])
    settings = {name: value for name, value in section.items() if name != KIND and value is not None}
    return cast(Scheduler, make_config(schedulers()[kind], settings, "search.scheduler", kind))


def objective_of(state: SearchRecord) -> Objective:
    """Return the objective that trials are judged by: the first."""
    assert state.settings is not None  # a search without its first event has no reports to judge
    return state.settings.objectives[0]


def first_steps(given: int | None, trial: TrialRecord) -> int:
    """Return ``given``, or if it is None the step of the trial's first report."""
    return given or max(1, trial.reports[0].step)
