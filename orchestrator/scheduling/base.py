"""The interface of a scheduler: a pure function of the journalled reports that decides whether a trial goes on."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

from metaloom.learners.domains import Int
from metaloom.learners.fields import make_config
from metaloom.search_spaces.sections.settings import Objective
from metaloom.search_spaces.sections.strategies import KIND, SchedulerKind, schedulers
from metaloom.workers.records.search import SearchRecord, TrialRecord

CONTINUE, STOP, PAUSE = "continue", "stop", "pause"
Count = Annotated[int, Int(1, 1000, log=True)]
Steps = Annotated[int | None, Int(1, 10_000_000, log=True)]


@dataclass(frozen=True)
class Verdict:
    """The decision on a trial after a report: ``continue``, ``stop`` or ``pause``, and the reason."""

    action: str = CONTINUE
    reason: str = ""


@dataclass(frozen=True)
class Exploit:
    """A trial of a population copies a better one's checkpoint and knobs.

    Attributes:
        trial: The trial that copies.
        donor: The trial that is copied; both are at ``step``.
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

    ``judge`` is called immediately after a report has been applied to the state, so the other trials' reports are
    earlier ones. No state is kept between calls, so a replay of the journal gives every decision again.
    """

    @abstractmethod
    def judge(self, state: SearchRecord, trial: TrialRecord) -> Verdict:
        """Return whether ``trial`` goes on after its last report."""

    def rungs(self, state: SearchRecord) -> Sequence[int]:
        """Return the outer steps at which trials are compared, up to the last that was reached; empty without such."""
        return ()

    def exploits(self, state: SearchRecord, *, seed: int) -> Sequence[Exploit]:
        """Return the exchanges of a complete generation; empty without a population or a complete generation."""
        return ()

    def may_start(self, state: SearchRecord, trial: TrialRecord) -> bool:
        """Return whether a waiting trial may go on now; without a population it always may."""
        return True


def build_scheduler(section: Mapping[str, Any]) -> Scheduler:
    """Build the scheduler of a search section; raises LearnerError if it or a setting is unknown or does not fit."""
    kind = str(section[KIND])
    settings = {name: value for name, value in section.items() if name != KIND and value is not None}
    return cast(Scheduler, make_config(schedulers()[kind], settings, "search.scheduler", kind))


def objective_of(state: SearchRecord) -> Objective:
    """Return the first objective, by which trials are judged."""
    assert state.settings is not None  # a search without its first event has no reports
    return state.settings.objectives[0]


def first_steps(given: int | None, trial: TrialRecord) -> int:
    """Return ``given``, or the step of the trial's first report if it is None."""
    return given or max(1, trial.reports[0].step)
