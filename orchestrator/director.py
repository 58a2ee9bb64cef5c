"""The Director makes every decision of a search, and journals it before it takes effect.

Executors request trials from it and pass on the workers' messages. Its whole state is in the journal: a new Director
over the same journal continues where a killed one stopped.
"""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from metaloom.learners.errors import BadEnvironment
from metaloom.orchestrator import inbox
from metaloom.orchestrator.clock import note_time, noted_time, steady_clock
from metaloom.orchestrator.ending import end_of
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.journal import EventLog
from metaloom.orchestrator.messages import Assignment, Message, SearchProgress, problem_of, result_of, trial_config
from metaloom.orchestrator.proposing.samplers.base import Define
from metaloom.orchestrator.proposing.study import Proposer
from metaloom.orchestrator.scheduling.base import CONTINUE, PAUSE, STOP, Exploit, Scheduler, Verdict, build_scheduler
from metaloom.orchestrator.scheduling.population import take_over_all
from metaloom.orchestrator.suggesting import repetition, suggestion, without_repeats
from metaloom.search_spaces.resolve import Resolved
from metaloom.workers.part_mending import mend_trials
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.configurations import to_repeat
from metaloom.workers.records.journal import Event
from metaloom.workers.records.names import trial_directory
from metaloom.workers.records.search import SearchRecord, TrialRecord
from metaloom.workers.records.trial import Report, TrialConfig


class Director:
    """Decides for one search.

    Args:
        journal: Open for appending, with its ``search_created`` event; the caller holds the writer's lock.
        define: Resolves the experiment through a ``Suggest``.
        clock: Seconds since the epoch; by default a steady clock, so that the session's own time counts.
        proposing: Makes what proposes the trials.

    Attributes:
        exhausted: Whether the grid has no further point.

    Raises:
        SearchError: The journal holds no search, or its sampler or scheduler does not exist.
    """

    def __init__(
        self,
        journal: EventLog,
        define: Define,
        *,
        progress: SearchProgress | None = None,
        clock: Callable[[], float] | None = None,
        proposing: Callable[..., Proposer] = Proposer,
    ) -> None:
        events = journal.events()
        self.state = SearchRecord.replay(events)
        if self.state.settings is None:
            raise SearchError(f"{journal.path} holds no search: it was killed while it was being made; remove it")
        self.settings = self.state.settings
        self.journal, self._progress, self._clock = journal, progress, clock or steady_clock()
        self.seed = int(self.state.created["seed"])
        self.seeds = int(self.state.created.get("seeds", records.FIRST_SEEDS_VERSION))
        self.scheduler: Scheduler = build_scheduler(self.settings.scheduler)
        warm_start = self.state.created.get("warm_start") or ()
        self._proposer = proposing(self.settings, seed=self.seed, define=define, warm_start=warm_start)
        for event in events:
            self._proposer.apply(event)
        self.exhausted = False

    def start(self) -> None:
        """Begin a session; trials that the last session left running wait to be resumed."""
        spent = max(self.state.elapsed_s, noted_time(self.journal.folder, self.state.session))
        begun = self._event(records.SEARCH_STARTED, None, pid=os.getpid(), host=socket.gethostname(), spent_s=spent)
        self._record(*self._interrupted(records.KILLED), begun)
        take_over_all(self.journal.folder, self.state.in_state(records.WAITING))
        for trial, warnings in mend_trials(self.journal.folder, self.state.in_state(records.WAITING)).items():
            self.note(records.TRIAL_WARNED, trial, warnings=warnings)

    def next_trial(self, *, worker: str = "") -> Assignment | None:
        """Return the trial to run next, journalled as started; None if there is none now (see ``is_over``)."""
        if self.time_is_up():
            self._stop_for_time(self.state.in_state(records.WAITING))
            return None
        if inbox.take_up(self.journal.folder, self.state, lambda one: self.note(records.ENQUEUED, **one)):
            self.exhausted = False  # a grid that has ended
        self._exchange()
        ready = next(self._ready(), None)
        while ready is None and self._may_propose():
            ready = self._propose()
        if ready is None:
            return None
        self.note(records.TRIAL_STARTED, ready.number, attempt=ready.attempts + 1, worker=worker)
        assert ready.config is not None  # a trial without one has failed
        return Assignment(ready.config, self.directory(ready.number), ready.step if ready.reports else -1)

    @property
    def is_over(self) -> bool:
        """True if no trial runs, waits, or is still to be suggested."""
        ended = all(trial.ended for trial in self.state.trials.values())
        return ended and (self.time_is_up() or not self._may_propose())

    @property
    def has_waiting(self) -> bool:
        """True if a trial waits, also if it waits for other trials."""
        return bool(self.state.in_state(records.WAITING))

    @property
    def may_begin(self) -> bool:
        """True if ``next_trial`` would return a trial now."""
        return not self.time_is_up() and (self._may_propose() or any(self._ready()))

    def time_is_up(self) -> bool:
        """Return whether the time budget is spent."""
        budget = self.settings.time_budget_s
        return budget is not None and self.state.elapsed_at(self._clock()) >= budget

    def tick(self) -> None:
        """Note the time spent, of which a kill then loses a second at most; an executor calls it every second."""
        if self.settings.time_budget_s is not None:
            note_time(self.journal.folder, self.state.session, self.state.elapsed_at(self._clock()))

    def hear(self, message: Message) -> bool:
        """Take a worker's message; return whether its trial goes on; raises BadEnvironment for a machine fault."""
        if message.report is not None:
            return self.report(message.trial, message.report, worker=message.worker) == CONTINUE
        if message.environment:
            self.note(records.TRIAL_INTERRUPTED, message.trial, reason=message.problem, lost=False)
            raise BadEnvironment(message.problem)
        self.failed(message.trial, message.problem, message.traceback)
        return False

    def report(self, trial: int, report: Report, *, worker: str = "") -> str:
        """Journal a report and what follows from it in one transaction; return ``continue``, ``stop`` or ``pause``."""
        record = self.state.trials[trial]
        if record.ended:
            return STOP
        if report.warnings:  # a separate event, because the report itself may be in the journal already
            self.note(records.TRIAL_WARNED, trial, warnings=list(report.warnings))
        if record.reports and report.step <= record.step:
            if not report.parts.items() <= record.parts.items():
                self.note(records.TRIAL_REWROTE, trial, parts=report.parts)
            return CONTINUE  # repeated after a damaged checkpoint or part: the journal has it already
        if problem := problem_of(report, self.settings):
            self.failed(trial, problem, "")
            return STOP
        verdict = self._judge(record, report)
        events = [self._event(records.TRIAL_REPORTED, trial, report=report.to_json(), worker=worker)]
        if report.finished:
            events.append(self._event(records.TRIAL_FINISHED, trial, **result_of(report, self.settings)))
        elif verdict.action == STOP:
            ending = {"step": report.step, "reason": verdict.reason, **result_of(report, self.settings)}
            events.append(self._event(records.TRIAL_STOPPED, trial, **ending))
        elif verdict.action == PAUSE:
            events.append(self._event(records.TRIAL_INTERRUPTED, trial, reason=verdict.reason, lost=False))
        self._record(*events)
        return STOP if report.finished else verdict.action

    def failed(self, trial: int, problem: str, traceback: str) -> None:
        """Journal that a trial has failed; the search goes on."""
        record = self.state.trials[trial]
        if not record.ended:
            self.note(records.TRIAL_FAILED, trial, reason=problem, traceback=traceback, step=record.step)

    def lost(self, trial: int, reason: str) -> None:
        """Journal that a trial's worker died: the trial waits to be resumed, or fails after too many losses."""
        record = self.state.trials[trial]
        if record.ended or record.state == records.WAITING:
            return
        if record.lost >= self.settings.retries:
            often = f" {record.lost + 1} times; the last time" if record.lost else ""
            self.failed(trial, f"its worker was lost{often}: {reason}", "")
        else:
            self.note(records.TRIAL_INTERRUPTED, trial, reason=reason, lost=True)

    def hangs(self, trial: int, reason: str) -> None:
        """Journal that a trial shows no progress, before its worker is killed: as a lost worker, or as out of time."""
        if reason == records.OUT_OF_TIME:
            self._stop_for_time([self.state.trials[trial]])
        else:
            self.lost(trial, reason)

    def set_aside(self, trial: int, reason: str) -> None:
        """Journal that a trial was interrupted through no fault of its own, and waits to be resumed."""
        if self.state.trials[trial].state == records.RUNNING:
            self.note(records.TRIAL_INTERRUPTED, trial, reason=reason, lost=False)

    def interrupt(self, reason: str) -> None:
        """End the session: running trials wait and the search is ``interrupted``. A second call has no effect."""
        if self.state.state == records.INTERRUPTED:
            return
        ended = self._event(records.SEARCH_ENDED, None, state=records.INTERRUPTED, reason=reason)
        self._record(*self._interrupted(reason), ended)

    def end(self) -> None:
        """End the search: ``finished``, or ``failed`` if no trial has a result."""
        ending = end_of(self.state, has_more=self._has_more, may_propose=self._may_propose())
        self.note(records.SEARCH_ENDED, **ending)

    def note(self, kind: str, trial: int | None = None, /, **payload: Any) -> None:
        """Journal one event, of a trial or of the search."""
        self._record(self._event(kind, trial, **payload))

    def directory(self, trial: int) -> Path:
        """Return a trial's directory."""
        return trial_directory(self.journal.folder, trial)

    def config(self, number: int, resolved: Resolved) -> TrialConfig:
        """Return the configuration of a trial of this search."""
        return trial_config(resolved, search=self.journal.folder.name, trial=number, seed=self.seed, seeds=self.seeds)

    def _ready(self) -> Iterator[TrialRecord]:
        waiting = self.state.in_state(records.WAITING)
        return (trial for trial in waiting if self.scheduler.may_start(self.state, trial))

    def _interrupted(self, reason: str) -> list[Event]:
        running = self.state.in_state(records.RUNNING)
        return [self._event(records.TRIAL_INTERRUPTED, one.number, reason=reason, lost=False) for one in running]

    @property
    def _has_more(self) -> bool:
        return not self.exhausted and self.state.begun < self.settings.trials

    def _may_suggest(self) -> bool:
        return self._has_more and not ranking.has_no_gain(self.state)

    def _may_propose(self) -> bool:
        return self._may_suggest() or any(to_repeat(self.state, finished=one) for one in (True, False))

    def _propose(self) -> TrialRecord | None:
        """Suggest and journal the next trial; None if the grid has ended or the knobs contradict each other."""
        first = to_repeat(self.state, finished=True)
        first = first if first or self._may_suggest() else to_repeat(self.state, finished=False)
        number = len(self.state.trials)
        if first is not None:
            self.note(records.TRIAL_SUGGESTED, number, **repetition(first, number, self.state))
            return self.state.trials[number]
        proposal = self._proposer.propose(self.state.begun)
        if proposal is None:
            self.exhausted = True
            return None
        config = None if proposal.resolved is None else self.config(number, proposal.resolved)
        events = [self._event(records.TRIAL_SUGGESTED, number, **suggestion(proposal, config, self.state))]
        if config is None:
            events.append(self._event(records.TRIAL_FAILED, number, reason=proposal.problem, traceback="", step=0))
        self._record(*events)
        return None if config is None else self.state.trials[number]

    def _judge(self, record: TrialRecord, report: Report) -> Verdict:
        """Ask the scheduler as if the report were journalled; it is journalled together with the verdict."""
        if report.finished:
            return Verdict()
        record.reports.append(report)
        try:
            one_of = without_repeats(self.state)
            verdict = self.scheduler.judge(one_of, record) if record.number in one_of.trials else Verdict()
        finally:
            record.reports.pop()
        if verdict.action == CONTINUE and self.time_is_up():
            return Verdict(STOP, records.OUT_OF_TIME)
        return verdict

    def _stop_for_time(self, trials: Sequence[TrialRecord]) -> None:
        """Stop trials because the budget is spent; a trial without a report has no value."""
        for trial in trials:
            result = result_of(trial.last, self.settings) if trial.last else {"value": None, "values": {}}
            ending = {"step": trial.step, "reason": records.OUT_OF_TIME, **result}
            self.note(records.TRIAL_STOPPED, trial.number, **ending)

    def _exchange(self) -> None:
        """Exchange checkpoints in the scheduler's population if a generation is complete."""
        if exploits := self.scheduler.exploits(self.state, seed=self.seed):
            self._record(*map(self._exploited, exploits))
            take_over_all(self.journal.folder, self.state.in_state(records.WAITING))

    def _exploited(self, exploit: Exploit) -> Event:
        resolved = self._proposer.resolve_with(exploit.params)
        payload = {
            **{name: value for name, value in vars(exploit).items() if name != "trial"},
            "distributions": self.state.trials[exploit.donor].distributions,
            "knobs": dict(resolved.knobs),
            "config": self.config(exploit.trial, resolved).to_json(),
        }
        return self._event(records.TRIAL_EXPLOITED, exploit.trial, **payload)

    def _event(self, kind: str, trial: int | None, /, **payload: Any) -> Event:
        return Event(0, self._clock(), trial, kind, payload)

    def _record(self, *events: Event) -> None:
        """Append the events in one transaction, then apply them as a replay would read them."""
        for event in self.journal.append_all(events):
            self.state.apply(event)
            self._proposer.apply(event)
            if self._progress is not None:
                self._progress.update(event, self.state)
