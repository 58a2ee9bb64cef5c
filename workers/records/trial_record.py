"""The state of one trial, which the events of its search's journal add up to."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from metaloom.workers.records import names
from metaloom.workers.records.trial import Report, TrialConfig

R = TypeVar("R")


def own_copy(record: R) -> R:
    """Return a copy of a record with lists and mappings of its own; what these hold is shared."""
    mine = copy.copy(record)
    vars(mine).update({name: one.copy() for name, one in vars(record).items() if isinstance(one, list | dict)})
    return mine


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
        remarks: The user's.
        repeat_of: The trial whose knobs it repeats (``search.repeats``); None if it is the first.
        twin: The earlier trial for which the sampler suggested the same knobs; None if there is none.
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
    remarks: list[str] = field(default_factory=list)
    repeat_of: int | None = None
    twin: int | None = None

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
    def stages(self) -> tuple[Mapping[str, Any], ...]:
        """The stages from which it has started, by its first report; none before it, and where there are none."""
        return next((report.stages for report in self.reports if report.stages), ())

    @property
    def notes(self) -> list[str]:
        """The user's remarks, those of its reports, such as that it stopped early, and why it was stopped."""
        notes = self.remarks + [note for report in self.reports for note in report.notes]
        if self.twin is not None:
            notes.append(f"its knobs are those of trial {self.twin}: both are judged by their mean")
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
                self.repeat_of, self.twin = payload.get("repeat_of"), payload.get("twin")  # absent before 0.3
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
            case names.NOTED:
                self.remarks = payload["notes"]
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
