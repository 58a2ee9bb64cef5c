"""The one record of a search: the state that the events of its journal add up to.

The Director decides by this record, and pages, figures and commands show it. Only ``apply`` gives an event its meaning.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaloom.search_spaces.sections.settings import SearchSettings
from metaloom.workers.records import names
from metaloom.workers.records.journal import Event, RecordsError, event_of
from metaloom.workers.records.journal_sources import Reading, read_journal
from metaloom.workers.records.trial_record import TrialRecord, own_copy

__all__ = ["SearchRecord", "TrialRecord"]


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
        no_gain: Whether ``search.patience`` has ended it before all trials were done.
        extended_at: The number of trials when it was last extended after that; they count no more.
        tested: Payload of the test of the best trial, or None.
        baselines: Payloads of the baselines' tests; a method that is tested again replaces its earlier test.
        warnings: Damage to its journal, repaired or not.
        remarks: The user's.
        former_names: The names that it was renamed from, the oldest first.
        enqueued: Configurations that were enqueued after its beginning, the oldest first: ``request``, ``origin`` and
            ``params`` each.
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
    no_gain: bool = False
    extended_at: int = 0
    tested: dict[str, Any] | None = None
    baselines: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    former_names: list[str] = field(default_factory=list)
    enqueued: list[dict[str, Any]] = field(default_factory=list)
    _clock: tuple[float, float] | None = None  # elapsed when it began, and that time; None while it stands still
    _counts_all: bool = False  # whether all events count, as in sessions before 0.3: from its start to its last event

    @classmethod
    def replay(cls, events: Iterable[Event]) -> "SearchRecord":
        """Apply all events of a journal; raises RecordsError for an event that lacks a part that its kind has."""
        search = cls()
        for event in events:
            search._apply_stored(event)
        return search

    def with_events(self, events: Iterable[Event]) -> "SearchRecord":
        """Return the record after further events; this one stays as it is, and shares the trials that they leave alone.

        Raises RecordsError likewise.
        """
        search, own = own_copy(self), set[int]()
        for event in events:
            every = (
                search.trials if event.kind == names.SEARCH_EXTENDED else ()
            )  # it changes trials that it does not name
            for number in {*every, *(() if event.trial is None else (event.trial,))} - own:
                own.add(number)
                if number in search.trials:
                    search.trials[number] = own_copy(search.trials[number])
            search._apply_stored(event)
        return search

    def _apply_stored(self, event: Event) -> None:
        try:
            self.apply(event)
        except (KeyError, TypeError, ValueError) as problem:
            place = f"event {event.id} ({event.kind}) of the journal cannot be read"
            raise RecordsError(f"{place}: {problem!r}; was it written by another version of metaloom?") from problem

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
        search = cls.replay(map(event_of, found.rows))
        search.warnings += found.warnings(folder)
        return search

    def apply(self, event: Event) -> None:
        """Apply one event; an event of an unknown kind (of a newer version) changes nothing but the clock."""
        self.advance_clock(event)
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
                self.session, self.out_of_time, self.no_gain = event.id, False, False
            case names.SEARCH_ENDED:
                self.state = payload["state"]
                self.out_of_time = self.state != names.INTERRUPTED and payload.get("out_of_time", self._is_cut())
                self.no_gain = bool(payload.get("no_gain"))
            case names.SEARCH_EXTENDED:
                self._extend(payload)
            case names.BASELINE:
                others = [baseline for baseline in self.baselines if baseline["method"] != payload["method"]]
                self.baselines = [*others, {"best_better_by": None, **payload}]  # absent in old records
            case names.BEST_TESTED:
                self.tested = payload
            case names.JOURNAL_REPAIRED:
                self.warnings += payload["lines"]
            case names.NOTED:
                self.remarks = payload["notes"]
            case names.RENAMED:
                self.former_names.append(payload["before"])
            case names.ENQUEUED:
                self.enqueued.append(payload)

    @property
    def begun(self) -> int:
        """The number of trials that were suggested, without the repeats."""
        return sum(trial.repeat_of is None for trial in self.trials.values())

    def in_state(self, *states: str) -> list[TrialRecord]:
        """List the trials in any of ``states``, by number."""
        return [trial for _, trial in sorted(self.trials.items()) if trial.state in states]

    def cut_off(self) -> list[TrialRecord]:
        """List the trials that the time budget has stopped."""
        return [trial for trial in self.in_state(names.STOPPED) if trial.reason == names.OUT_OF_TIME]

    def to_try(self) -> list[dict[str, Any]]:
        """List the enqueued configurations that no trial has taken yet, in their order."""
        taken = {trial.origin for trial in self.trials.values()}
        return [one for one in self.enqueued if one["origin"] not in taken]

    def elapsed_at(self, now: float) -> float:
        """Return the time spent up to ``now``, over all sessions; the time between sessions does not count."""
        if self._clock is None:
            return self.elapsed_s
        before, began = self._clock
        return before + max(0.0, now - began)  # a clock set back must not add to the budget

    def advance_clock(self, event: Event) -> None:
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
        budget_s, asked = payload["time_budget_s"], payload.get("asked")  # the latter is absent before 0.3
        if self.no_gain:
            self.extended_at, self.no_gain = len(self.trials), False
        if self.settings is not None:
            changes = {"time_budget_s": budget_s, "trials": asked or self.settings.trials}
            self.settings = self.settings.model_copy(update=changes)
        for trial in self.cut_off():
            trial.state, trial.reason, trial.values = names.WAITING, None, {}
        if self.out_of_time or asked is not None:
            self.tested, self.baselines = None, []
        self.state = names.INTERRUPTED
