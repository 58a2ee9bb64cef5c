"""The one record of a search: the state that the events of its journal add up to.

The Director decides by this record, and pages, figures and commands show it. Only ``apply`` gives an event its meaning.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaloom.search_spaces.sections.settings import SearchSettings
from metaloom.workers.records import names
from metaloom.workers.records.journal import Event, RecordsError
from metaloom.workers.records.journal_sources import Reading, read_journal
from metaloom.workers.records.trial import Report, TrialConfig


@dataclass
class TrialRecord:
    """The state of one trial.

    Attributes:
        number: Its number in the search, from 0.
        state: One of ``names.TRIAL_STATES``.
        knobs: The searched knobs that exist in this trial, by name.
        params: The raw values suggested, by knob, as Optuna stores them.
        distributions: Their distributions, as Optuna's JSON.
        origin: The sampler, or the earlier trial the knobs were taken from.
        config: None if the knobs could not be put together (the trial has then failed).
        reports: By outer step, ascending; a step that is reported again replaces the earlier report of it.
        attempts: How often it was started.
        lost: How often its worker was lost.
        reason: Why it was stopped, failed or waits.
        traceback: Where it failed.
        values: The objectives of its last report; empty before its end.
        warnings: Problems that were repaired, such as a damaged checkpoint.
        exploited: Payload of the last exchange of population-based training, until the trial is started again.
        parts: Size and digest of each episode part, by its file name, in the order of the outer steps.
        generation: The last generation in which it took over another trial's checkpoint.
    """

    number: int
    state: str = names.WAITING
    knobs: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, str] = field(default_factory=dict)
    origin: str = ""
    config: TrialConfig | None = None
    reports: list[Report] = field(default_factory=list)
    attempts: int = 0
    lost: int = 0
    reason: str | None = None
    traceback: str | None = None
    values: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    exploited: dict[str, Any] | None = None
    parts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    generation: int = 0

    @property
    def ended(self) -> bool:
        """True if it has reached its final state."""
        return self.state in {names.FINISHED, names.STOPPED, names.FAILED}

    @property
    def last(self) -> Report | None:
        """The newest report; None before the first."""
        return self.reports[-1] if self.reports else None

    @property
    def step(self) -> int:
        """Outer steps that are in the journal."""
        return self.last.step if self.last else 0

    @property
    def error(self) -> str | None:
        """Why it failed; None if it has not."""
        return (self.reason or "failed without a reason") if self.state == names.FAILED else None

    @property
    def notes(self) -> list[str]:
        """The remarks of its reports, such as that it stopped early, and why it was stopped."""
        notes = [note for report in self.reports for note in report.notes]
        if self.state == names.STOPPED:
            notes.append(f"stopped: {self.reason or 'no reason was given'}")
        return notes

    def report_at(self, step: int) -> Report | None:
        """Return the first report at or after ``step``."""
        return next((report for report in self.reports if report.step >= step), None)

    def apply(self, kind: str, payload: Mapping[str, Any]) -> bool:
        """Apply an event of this trial; return False for an unknown kind, which changes nothing."""
        match kind:
            case names.TRIAL_SUGGESTED:
                self._take_knobs(payload)
                self.origin = payload["sampler"]
            case names.TRIAL_STARTED:
                self.state, self.attempts, self.reason = names.RUNNING, payload["attempt"], None
                self.exploited = None
            case names.TRIAL_REPORTED:
                report = Report.from_json(payload["report"])
                if report.step <= self.step:
                    self.reports = [earlier for earlier in self.reports if earlier.step < report.step]
                self.reports.append(report)
                self._take_parts(report.parts)
            case names.TRIAL_STOPPED:
                self.state, self.reason, self.values = names.STOPPED, payload["reason"], payload["values"]
            case names.TRIAL_FINISHED:
                self.state, self.reason, self.values = names.FINISHED, None, payload["values"]
            case names.TRIAL_FAILED:
                self.state, self.reason, self.traceback = names.FAILED, payload["reason"], payload["traceback"]
            case names.TRIAL_INTERRUPTED:
                self.state, self.reason = names.WAITING, payload["reason"]
                self.lost += bool(payload["lost"])
            case names.TRIAL_EXPLOITED:  # population-based training has changed its knobs from here on
                self.state, self.exploited, self.generation = names.WAITING, dict(payload), payload["generation"]
                self._take_knobs(payload)
            case names.TRIAL_REWROTE:
                self._take_parts(payload["parts"])
            case names.TRIAL_WARNED:
                self.warnings += payload["warnings"]
            case _:
                return False
        return True

    def _take_parts(self, parts: Mapping[str, Mapping[str, Any]]) -> None:
        """Take new parts; of the earlier ones, those that reach beyond their first outer step are gone."""
        first = min((names.steps_of_part(name)[0] for name in parts), default=math.inf)
        while self.parts and names.steps_of_part(last := next(reversed(self.parts)))[1] > first:
            del self.parts[last]
        self.parts.update(parts)

    def _take_knobs(self, payload: Mapping[str, Any]) -> None:
        self.knobs, self.params, self.distributions = payload["knobs"], payload["params"], payload["distributions"]
        self.config = TrialConfig.from_json(payload["config"]) if payload["config"] else None


@dataclass
class SearchRecord:
    """The state of one search.

    Attributes:
        created: Payload of the event that created it: the experiment, the seed, the options.
        settings: Its search section; None before that event.
        trials: By number, from 0, without gaps.
        state: ``waiting``, ``running``, ``finished``, ``failed`` or ``interrupted``.
        created_at: Time of the first event, in seconds since the epoch; ``updated_at`` that of the last.
        process: PID, host and time of the driver that ran it last.
        session: Id of the event that began the last session; 0 before the first.
        elapsed_s: Time spent on trials, over all sessions, up to the last event: what the time budget limits. A
            session's time begins with its first trial, so that the start of Ray does not count.
        out_of_time: Whether the time budget has ended it before all trials were done.
        tested: Payload of the test of the best trial, or None.
        baselines: Payloads of the baselines' tests; a method that is tested again replaces its earlier test.
        warnings: Damage to its journal, repaired or not.
    """

    created: dict[str, Any] = field(default_factory=dict)
    settings: SearchSettings | None = None
    trials: dict[int, TrialRecord] = field(default_factory=dict)
    state: str = names.WAITING
    created_at: float | None = None
    updated_at: float | None = None
    process: dict[str, Any] = field(default_factory=dict)
    session: int = 0
    elapsed_s: float = 0.0
    out_of_time: bool = False
    tested: dict[str, Any] | None = None
    baselines: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _clock: tuple[float, float] | None = None  # elapsed when it began, and that time; None while it stands still
    _counts_all: bool = False  # whether all events count, as in sessions before 0.3: from its start to its last event

    @classmethod
    def replay(cls, events: Iterable[Event]) -> "SearchRecord":
        """Apply all events of a journal; raises RecordsError for an event that lacks a part that its kind has."""
        search = cls()
        for event in events:
            try:
                search.apply(event)
            except (KeyError, TypeError, ValueError) as problem:
                place = f"event {event.id} ({event.kind}) of the journal cannot be read"
                raise RecordsError(f"{place}: {problem!r}; was it written by another version of metaloom?") from problem
        return search

    @classmethod
    def read(cls, folder: Path, found: Reading | None = None) -> "SearchRecord":
        """Read the search in ``folder`` from its journal, and where that is damaged from its copies too.

        Args:
            folder: The search's.
            found: Its journal, if it has just been read.

        Raises:
            RecordsError: No event can be read.
        """
        found = found or read_journal(folder)
        if not found.rows:
            nothing = f"no event of search '{folder.name}' can be read"
            raise RecordsError(f"{found.problem}: {nothing}; see: metaloom repair {folder.name}")
        search = cls.replay(found.events)
        search.warnings += found.warnings(folder)
        return search

    def apply(self, event: Event) -> None:
        """Apply one event; an event of an unknown kind (of a newer version) changes nothing but the clock."""
        self._advance_clock(event)
        payload = event.payload
        if event.trial is not None:
            trial = self.trials.get(event.trial) or TrialRecord(event.trial)
            if trial.apply(event.kind, payload):
                self.trials[event.trial] = trial
                return
        match event.kind:
            case names.SEARCH_CREATED:
                self.created, self.created_at = payload, event.time
                self.settings = SearchSettings.from_document(payload["settings"])
            case names.SEARCH_STARTED:
                self.state, self.process = names.RUNNING, {**payload, "time": event.time}
                self.session, self.out_of_time = event.id, False
            case names.SEARCH_ENDED:
                self.state = payload["state"]
                self.out_of_time = self.state != names.INTERRUPTED and payload.get("out_of_time", self._is_cut())
            case names.SEARCH_EXTENDED:
                self._extend(payload)
            case names.BASELINE:
                others = [baseline for baseline in self.baselines if baseline["method"] != payload["method"]]
                self.baselines = [*others, {"best_better_by": None, **payload}]  # absent in old records
            case names.BEST_TESTED:
                self.tested = payload
            case names.JOURNAL_REPAIRED:
                self.warnings += payload["lines"]

    @property
    def begun(self) -> int:
        """The number of trials that were suggested."""
        return len(self.trials)

    def in_state(self, *states: str) -> list[TrialRecord]:
        """List the trials in any of ``states``, by number."""
        return [trial for _, trial in sorted(self.trials.items()) if trial.state in states]

    def cut_off(self) -> list[TrialRecord]:
        """List the trials that the time budget has stopped."""
        return [trial for trial in self.in_state(names.STOPPED) if trial.reason == names.OUT_OF_TIME]

    def elapsed_at(self, now: float) -> float:
        """Return the time spent up to ``now``, over all sessions; the time between sessions does not count."""
        if self._clock is None:
            return self.elapsed_s
        before, began = self._clock
        return before + max(0.0, now - began)  # a clock set back must not add to the budget

    def _advance_clock(self, event: Event) -> None:
        """Count the session's time; the events of a session carry the times of one steady clock."""
        self.updated_at = event.time
        if event.kind == names.SEARCH_STARTED:
            self._counts_all = "spent_s" not in event.payload
            self.elapsed_s = self.elapsed_s if self._counts_all else event.payload["spent_s"]  # exact after a kill too
            self._clock = (self.elapsed_s, event.time) if self._counts_all else None
        elif event.kind == names.TRIAL_STARTED and self._clock is None:
            self._clock = (self.elapsed_s, event.time)
        if event.trial is not None or self._counts_all:
            self.elapsed_s = self.elapsed_at(event.time)
        if event.kind == names.SEARCH_ENDED:
            self._clock = None

    def _is_cut(self) -> bool:
        """Return whether the time budget has ended the search, where its last event does not say so (before 0.3)."""
        if self.settings is None or self.settings.time_budget_s is None:
            return False
        return len(self.trials) < self.settings.trials or bool(self.cut_off())

    def _extend(self, payload: Mapping[str, Any]) -> None:
        """Take a new budget or number of trials; trials that the old budget has stopped go on.

        The search has not ended any more, also if no session has begun yet, and its best trial is tested again.
        """
        asked = payload.get("asked")  # absent before 0.3
        if self.settings is not None:
            changes = {"time_budget_s": payload["time_budget_s"], "trials": asked or self.settings.trials}
            self.settings = self.settings.model_copy(update=changes)
        for trial in self.cut_off():
            trial.state, trial.reason, trial.values = names.WAITING, None, {}
        if self.out_of_time or asked is not None:
            self.tested, self.baselines = None, []
        self.state = names.INTERRUPTED
