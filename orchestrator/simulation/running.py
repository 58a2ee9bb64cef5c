"""Runs one search against a table of results: its own Director, with simulated workers and a simulated clock.

Nothing is trained, no process is started and nothing is written. A trial's reports come when the table says that they
came in its training; of two that come at the same time, that of the trial which began earlier is first.
"""

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from metaloom.orchestrator.director import Director
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.messages import Assignment, result_of
from metaloom.orchestrator.scheduling.base import CONTINUE
from metaloom.orchestrator.simulation.candidates import Candidates
from metaloom.orchestrator.simulation.memory import MemoryLog, SimulatedClock
from metaloom.orchestrator.simulation.proposing import TableProposer
from metaloom.search_spaces.sections.settings import SearchSettings
from metaloom.search_spaces.sections.strategies import KIND, schedulers
from metaloom.workers.data.result_tables import Curve, ResultTable
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord

UNSEEN = "its curve was seen no further"
WORKER = "simulated"
COPIES = "trains on from copies with other knobs, which no table shows"


@dataclass(frozen=True)
class TrialEnd:
    """The search when one of its trials has ended.

    Attributes:
        trial: Its number.
        at_s: Simulated seconds since the search began.
        best: Number of the best trial so far, which ``metaloom show`` would star; None if there is none.
        value: Of the best trial so far, as the search judges it.
        worth: What its configuration is worth by the whole table.
    """

    trial: int
    at_s: float
    best: int | None
    value: float | None
    worth: float | None


@dataclass(frozen=True)
class Simulation:
    """One simulated search.

    Attributes:
        record: Its state, as of a real search.
        ends: Of its trials, in the order of their ends.
        places: The place in the table of each trial, by its number.
        unseen: The trials that the search would have gone on with, though the table shows no more of them: how many
            steps of their training were left out, by number.
        exhausted: Whether no configuration was left to take.
    """

    record: SearchRecord
    ends: Sequence[TrialEnd]
    places: Mapping[int, int]
    unseen: Mapping[int, int]
    exhausted: bool

    @property
    def seconds(self) -> float:
        """How long it took, in simulated seconds."""
        return self.ends[-1].at_s if self.ends else 0.0


@dataclass
class _Training:
    """A trial on a simulated worker: its curve, and how far the search has heard of it."""

    trial: int
    curve: Curve
    heard: int = 0

    def next_in_s(self) -> float:
        """Return how long the next report takes from the one before; 0 if there is none."""
        reports = self.curve.reports
        if self.heard >= len(reports):
            return 0.0
        before = reports[self.heard - 1].seconds if self.heard else 0.0
        return max(0.0, reports[self.heard].seconds - before)


def check_scheduler(settings: SearchSettings, table: ResultTable) -> None:
    """Refuse a scheduler that a table cannot answer; raises SearchError."""
    kind = str(settings.scheduler[KIND])
    scheduler = schedulers()[kind]
    if scheduler.copies_state:
        raise SearchError(f"search.scheduler: {kind} {COPIES}")
    if scheduler.compares_episodes and not table.has_scores:
        others = ", ".join(
            name for name, one in schedulers().items() if not (one.compares_episodes or one.copies_state)
        )
        raise SearchError(
            f"search.scheduler: {kind} compares trials on the same episodes, which {table.name} has not; use {others}"
        )


def simulate(
    table: ResultTable,
    settings: SearchSettings,
    *,
    seed: int = 0,
    workers: int = 1,
    warm_start: Sequence[Mapping[str, Any]] = (),
    candidates: Candidates | None = None,
    told: Callable[[TrialEnd], None] | None = None,
) -> Simulation:
    """Run a search against a table.

    Args:
        settings: The search section, as of an experiment; see ``table_settings``.
        seed: The search's: equal seeds give equal simulations.
        workers: How many trials are trained at once.
        warm_start: ``{"origin", "params"}`` of what is tried first.
        candidates: Of the same table, where several searches run against it.
        told: Called at each trial's end.

    Raises:
        SearchError: The table cannot answer the scheduler.
    """
    check_scheduler(settings, table)
    log, clock = MemoryLog(table.name), SimulatedClock()
    created = {"seed": seed, "seeds": records.SEEDS_VERSION, "settings": settings.to_document()}
    log.append(records.SEARCH_CREATED, {**created, "warm_start": list(warm_start)})
    made: list[TableProposer] = []

    def proposing(*given: Any, **named: Any) -> TableProposer:
        made.append(TableProposer(*given, **named, table=table, candidates=candidates or Candidates(table)))
        return made[-1]

    director = Director(log, table.define, clock=clock, proposing=proposing)
    director.start()
    run = _Run(director, clock, table, made[0], seed, told)
    run.until_the_end(workers)
    director.end()
    return Simulation(director.state, run.ends, made[0].place_of, run.unseen, director.exhausted)


@dataclass
class _Run:
    """The trials of one search on simulated workers."""

    director: Director
    clock: SimulatedClock
    table: ResultTable
    proposer: TableProposer
    seed: int
    told: Callable[[TrialEnd], None] | None
    ends: list[TrialEnd] = field(default_factory=list)
    unseen: dict[int, int] = field(default_factory=dict)

    def until_the_end(self, workers: int) -> None:
        """Begin trials and hear of them until the search is over."""
        order, waiting = itertools.count(), list[tuple[float, int, _Training]]()
        while True:
            while len(waiting) < workers and (assignment := self._next()) is not None:
                begun = self._begun(assignment)
                heapq.heappush(waiting, (self.clock.now_s + begun.next_in_s(), next(order), begun))
            if not waiting:
                return
            self.clock.now_s, place, training = heapq.heappop(waiting)
            if self._goes_on(training):
                heapq.heappush(waiting, (self.clock.now_s + training.next_in_s(), place, training))
            else:
                self._note_end(training.trial)

    def _next(self) -> Assignment | None:
        """Return the next trial, and note the ends of those that failed as they were put together."""
        before = len(self.director.state.trials)
        assignment = self.director.next_trial(worker=WORKER)
        for number in range(before, len(self.director.state.trials)):
            if self.director.state.trials[number].ended:
                self._note_end(number)
        return assignment

    def _begun(self, assignment: Assignment) -> _Training:
        number, place = assignment.config.trial, self.proposer.place_of[assignment.config.trial]
        others = [one for one, at in self.proposer.place_of.items() if at == place and one < number]
        return _Training(number, self.table.curve(place, run=len(others), seed=self.seed))

    def _goes_on(self, training: _Training) -> bool:
        """Pass the next report on; return whether the trial goes on after it."""
        curve, trial = training.curve, training.trial
        if training.heard < len(curve.reports):
            report = curve.reports[training.heard]
            training.heard += 1
            if self.director.report(trial, report, worker=WORKER) != CONTINUE:
                return False
        if training.heard < len(curve.reports):
            return True
        if curve.problem:
            self.director.failed(trial, curve.problem, "")
        else:
            self._cut(training)
        return False

    def _cut(self, training: _Training) -> None:
        """Stop a trial where the table shows no more of it."""
        record = self.director.state.trials[training.trial]
        self.unseen[training.trial] = training.curve.length - record.step
        result = result_of(record.last, self.director.settings) if record.last else {"value": None, "values": {}}
        self.director.note(records.TRIAL_STOPPED, training.trial, step=record.step, reason=UNSEEN, **result)

    def _note_end(self, number: int) -> None:
        state = self.director.state
        best = ranking.best(state)
        ended = TrialEnd(
            number,
            self.clock.now_s,
            None if best is None else best.number,
            None if best is None else ranking.judged_value(state, best),
            None if best is None else self.table.value(self.proposer.place_of[best.number]),
        )
        self.ends.append(ended)
        if self.told is not None:
            self.told(ended)
