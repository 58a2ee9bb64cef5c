"""The one record of a search: what the events of its journal add up to.

The Director decides by this record, and pages, figures and commands show it. Only
``SearchRecord.apply`` gives an event its meaning.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from metaloom.search_spaces.sections.settings import SearchSettings
from metaloom.workers.records import names
from metaloom.workers.records.journal import Event, RecordsError
from metaloom.workers.records.trial import Report, TrialConfig


@dataclass
class TrialRecord:
    """What has become of one trial so far.

    Attributes:
        number: Its number in the search, from 0.
        state: One of ``names.TRIAL_STATES``.
        knobs: The searched knobs that exist in this trial, by name.
        params: The raw values suggested, by knob, as Optuna knows them.
        distributions: Their distributions, as Optuna's JSON.
        origin: The sampler, or the earlier trial the knobs were taken from.
        config: None if the knobs could not be put together (the trial has then failed).
        reports: By outer step, ascending; a step that is reported again replaces the earlier report of it.
        attempts: How often it was started.
        lost: How often its worker was lost.
        reason: Why it was stopped, failed or waits.
        traceback: Where it failed.
        values: The objectives that it ended with, which are those of its last report; empty before its end.
        warnings: What went wrong and was put right, such as a damaged checkpoint.
        exploited: Payload of the last exchange of population-based training, until the trial is started again.
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
    generation: int = 0

    @property
    def ended(self) -> bool:
        """True if nothing will be done for it any more."""
        return self.state in {names.FINISHED, names.STOPPED, names.FAILED}

    @property
    def last(self) -> Report | None:
        """The newest report; None before the first."""
        return self.reports[-1] if self.reports else None

    @property
    def step(self) -> int:
        """Outer steps that the journal knows of."""
        return self.reports[-1].step if self.reports else 0

    @property
    def error(self) -> str | None:
        """Why it failed; None if it has not."""
        return (self.reason or "failed without a reason") if self.state == names.FAILED else None

    @property
    def notes(self) -> list[str]:
        """What its reports say beside numbers, such as that it stopped early, and why it was stopped."""
        notes = [note for report in self.reports for note in report.notes]
        if self.state == names.STOPPED:
            notes.append(f"stopped: {self.reason or 'no reason was given'}")
        return notes

    def report_at(self, step: int) -> Report | None:
        """Return the first report at or after ``step``."""
        return next((report for report in self.reports if report.step >= step), None)


@dataclass
class SearchRecord:
    """What has become of one search so far.

    Attributes:
        created: Payload of the event that created it: the experiment, the seed, the options.
        settings: Its search section; None before that event.
        trials: By number, from 0, without gaps.
        state: ``waiting``, ``running``, ``finished``, ``failed`` or ``interrupted``.
        created_at: Time of the first event, in seconds since the epoch; None before it.
        updated_at: Time of the last event.
        process: PID, host and time of the driver that ran it last.
        elapsed_s: Time spent, over all sessions.
        tested: Payload of the test of the best trial, or None.
        baselines: Payloads of the baselines' tests; a method that is tested again replaces its earlier test.
    """

    created: dict[str, Any] = field(default_factory=dict)
    settings: SearchSettings | None = None
    trials: dict[int, TrialRecord] = field(default_factory=dict)
    state: str = names.WAITING
    created_at: float | None = None
    updated_at: float | None = None
    process: dict[str, Any] = field(default_factory=dict)
    elapsed_s: float = 0.0
    tested: dict[str, Any] | None = None
    baselines: list[dict[str, Any]] = field(default_factory=list)
    _session: tuple[float, float] | None = None  # elapsed before it, its start

    @classmethod
    def replay(cls, events: Iterable[Event]) -> "SearchRecord":
        """Apply all events of a journal.

        Raises:
            RecordsError: An event does not hold what its kind promises.
        """
        search = cls()
        for event in events:
            try:
                search.apply(event)
            except (KeyError, TypeError, ValueError) as problem:
                place = f"event {event.id} ({event.kind}) of the journal cannot be read"
                raise RecordsError(f"{place}: {problem!r}; was it written by another version of metaloom?") from problem
        return search

    def apply(self, event: Event) -> None:
        """Take one event into account; an event of an unknown kind (of a newer version) changes nothing."""
        self._advance_clock(event)
        if event.trial is not None and event.kind in ON_TRIAL:
            trial = self.trials.setdefault(event.trial, TrialRecord(event.trial))
            ON_TRIAL[event.kind](trial, event.payload)
        elif event.kind in ON_SEARCH:
            ON_SEARCH[event.kind](self, event)

    def in_state(self, *states: str) -> list[TrialRecord]:
        """List the trials in any of ``states``, by number."""
        return [trial for _, trial in sorted(self.trials.items()) if trial.state in states]

    def elapsed_at(self, now: float) -> float:
        """Return the time spent up to ``now``, over all sessions; the time between sessions does not count."""
        if self._session is None:
            return self.elapsed_s
        before, began = self._session
        return before + max(0.0, now - began)  # a clock set back must not add to the budget

    def _advance_clock(self, event: Event) -> None:
        self.updated_at = event.time
        if event.kind == names.SEARCH_STARTED:
            self._session = (self.elapsed_s, event.time)
        self.elapsed_s = self.elapsed_at(event.time)
        if event.kind == names.SEARCH_ENDED:
            self._session = None


def _search_created(search: SearchRecord, event: Event) -> None:
    search.created, search.created_at = event.payload, event.time
    search.settings = SearchSettings.from_document(event.payload["settings"])


def _search_started(search: SearchRecord, event: Event) -> None:
    search.state, search.process = names.RUNNING, {**event.payload, "time": event.time}


def _search_ended(search: SearchRecord, event: Event) -> None:
    search.state = event.payload["state"]


def _best_tested(search: SearchRecord, event: Event) -> None:
    search.tested = event.payload


def _baseline(search: SearchRecord, event: Event) -> None:
    others = [one for one in search.baselines if one["method"] != event.payload["method"]]
    search.baselines = [*others, {"best_better_by": None, **event.payload}]  # absent in old records


def _suggested(trial: TrialRecord, payload: Mapping[str, Any]) -> None:
    trial.knobs, trial.params, trial.distributions = payload["knobs"], payload["params"], payload["distributions"]
    trial.origin = payload["sampler"]
    trial.config = TrialConfig.from_json(payload["config"]) if payload["config"] else None


def _started(trial: TrialRecord, payload: Mapping[str, Any]) -> None:
    trial.state, trial.attempts, trial.reason = names.RUNNING, payload["attempt"], None
    trial.exploited = None


def _reported(trial: TrialRecord, payload: Mapping[str, Any]) -> None:
    report = Report.from_json(payload["report"])
    if report.step <= trial.step:
        trial.reports = [earlier for earlier in trial.reports if earlier.step < report.step]
    trial.reports.append(report)


def _stopped(trial: TrialRecord, payload: Mapping[str, Any]) -> None:
    trial.state, trial.reason, trial.values = names.STOPPED, payload["reason"], payload["values"]


def _finished(trial: TrialRecord, payload: Mapping[str, Any]) -> None:
    trial.state, trial.reason, trial.values = names.FINISHED, None, payload["values"]


def _failed(trial: TrialRecord, payload: Mapping[str, Any]) -> None:
    trial.state, trial.reason, trial.traceback = names.FAILED, payload["reason"], payload["traceback"]


def _interrupted(trial: TrialRecord, payload: Mapping[str, Any]) -> None:
    trial.state, trial.reason = names.WAITING, payload["reason"]
    trial.lost += bool(payload["lost"])


def _exploited(trial: TrialRecord, payload: Mapping[str, Any]) -> None:
    """Population-based training has moved the trial on: other knobs from here."""
    trial.state, trial.exploited = names.WAITING, dict(payload)
    trial.knobs, trial.params, trial.generation = payload["knobs"], payload["params"], payload["generation"]
    trial.config, trial.distributions = TrialConfig.from_json(payload["config"]), payload["distributions"]


def _warned(trial: TrialRecord, payload: Mapping[str, Any]) -> None:
    trial.warnings += payload["warnings"]


ON_SEARCH: dict[str, Callable[[SearchRecord, Event], None]] = {
    names.SEARCH_CREATED: _search_created,
    names.SEARCH_STARTED: _search_started,
    names.SEARCH_ENDED: _search_ended,
    names.BASELINE: _baseline,
    names.BEST_TESTED: _best_tested,
}
ON_TRIAL: dict[str, Callable[[TrialRecord, Mapping[str, Any]], None]] = {
    names.TRIAL_SUGGESTED: _suggested,
    names.TRIAL_STARTED: _started,
    names.TRIAL_REPORTED: _reported,
    names.TRIAL_STOPPED: _stopped,
    names.TRIAL_FINISHED: _finished,
    names.TRIAL_FAILED: _failed,
    names.TRIAL_INTERRUPTED: _interrupted,
    names.TRIAL_EXPLOITED: _exploited,
    names.TRIAL_WARNED: _warned,
}
