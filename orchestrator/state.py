"""What the journal says: the state of a search, rebuilt by applying its events one after another."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from metaloom.learners.errors import unknown
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.journal import Event
from metaloom.workers.records import names as records
from metaloom.workers.records.names import Report, TrialConfig

DIRECTIONS = ("maximize", "minimize")
CREATED, ACTIVE = "created", "running"
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Objective:
    """A metric of the reports, and which way is better."""

    metric: str
    direction: str

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise SearchError(unknown("direction of an objective", self.direction, DIRECTIONS))

    def score(self, report: Report) -> float:
        """Return the metric, signed so that larger is better."""
        return self.signed(report.metrics[self.metric])

    def signed(self, value: float) -> float:
        """Return ``value`` such that larger is better."""
        return value if self.direction == "maximize" else -value


@dataclass(frozen=True)
class Constraint:
    """A bound that a trial's metric must keep to be feasible."""

    metric: str
    low: float | None = None
    high: float | None = None

    @property
    def name(self) -> str:
        """How Optuna and readers call it."""
        low = "" if self.low is None else f"{self.low:g}<="
        high = "" if self.high is None else f"<={self.high:g}"
        return f"{low}{self.metric}{high}"

    def violation(self, metrics: Mapping[str, float]) -> float:
        """Return by how much the bound is broken; 0 or less is feasible, a metric that is absent breaks it."""
        value = metrics.get(self.metric, math.inf)
        over = -math.inf if self.high is None else value - self.high
        under = -math.inf if self.low is None else self.low - value
        worst = max(over, under)
        return worst if not math.isnan(worst) else math.inf


@dataclass(frozen=True)
class SearchSettings:
    """The search section of an experiment, as the Director uses it.

    Attributes:
        trials: How many trials the search has.
        objectives: The first one is what schedulers and the best trial go by.
        constraints: Bounds on metrics.
        sampler: ``kind`` and its options.
        scheduler: ``kind`` and its options.
        time_budget_s: No trial is begun, and running ones end at their next report, after so many seconds.
        retries: How often a trial whose worker was lost is taken up again.
    """

    trials: int
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    sampler: Mapping[str, Any] = field(default_factory=lambda: {"kind": "tpe"})
    scheduler: Mapping[str, Any] = field(default_factory=lambda: {"kind": "none"})
    time_budget_s: float | None = None
    retries: int = 2

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "SearchSettings":
        """Read the search section, or what ``to_document`` wrote."""
        objectives = tuple(Objective(one["metric"], one["direction"]) for one in document["objectives"])
        constraints = tuple(
            Constraint(one["metric"], one.get("min"), one.get("max")) for one in document.get("constraints") or ()
        )
        budget, retries = document.get("time_budget_s"), document.get("retries")
        return cls(
            trials=int(document["trials"]),
            objectives=objectives,
            constraints=constraints,
            sampler=dict(document.get("sampler") or {"kind": "tpe"}),
            scheduler=dict(document.get("scheduler") or {"kind": "none"}),
            time_budget_s=None if budget is None else float(budget),
            retries=2 if retries is None else int(retries),
        )

    def to_document(self) -> dict[str, Any]:
        """Return JSON values, for the journal."""
        return {
            "trials": self.trials,
            "objectives": [{"metric": one.metric, "direction": one.direction} for one in self.objectives],
            "constraints": [{"metric": one.metric, "min": one.low, "max": one.high} for one in self.constraints],
            "sampler": dict(self.sampler),
            "scheduler": dict(self.scheduler),
            "time_budget_s": self.time_budget_s,
            "retries": self.retries,
        }


@dataclass
class TrialRecord:
    """What has become of one trial so far.

    Attributes:
        params: The raw values suggested, by knob, as Optuna knows them.
        distributions: Their distributions, as Optuna's JSON.
        origin: The sampler, or the earlier trial the knobs were taken from.
        config: None if the knobs could not be put together (the trial has then failed).
        lost: How often its worker was lost.
        reason: Why it was stopped, failed or waits.
        exploited: Payload of the last exchange of population-based training, until the trial is started again.
        generation: The last generation in which it took over another trial's checkpoint.
    """

    number: int
    state: str
    knobs: dict[str, Any]
    params: dict[str, Any]
    distributions: dict[str, str]
    origin: str
    config: TrialConfig | None
    reports: list[Report] = field(default_factory=list)
    attempts: int = 0
    lost: int = 0
    reason: str | None = None
    traceback: str | None = None
    values: dict[str, float] = field(default_factory=dict)
    exploited: dict[str, Any] | None = None
    generation: int = 0

    @property
    def ended(self) -> bool:
        """True if nothing will be done for it any more."""
        return self.state in {records.FINISHED, records.STOPPED, records.FAILED}

    @property
    def step(self) -> int:
        """Outer steps that the journal knows of."""
        return self.reports[-1].step if self.reports else 0

    def report_at(self, step: int) -> Report | None:
        """Return the first report at or after ``step``."""
        return next((report for report in self.reports if report.step >= step), None)


class SearchState:
    """The state of a search: what its events add up to.

    Attributes:
        created: Payload of the event that created it.
        settings: Its search section.
        trials: By number, from 0, without gaps.
        state: ``created``, ``running``, ``finished``, ``failed`` or ``interrupted``.
        elapsed_s: Time spent, over all sessions.
        tested: Payload of the test of the best trial, or None.
        baselines: Payloads of the baselines' tests.
    """

    def __init__(self) -> None:
        self.created: dict[str, Any] = {}
        self.settings: SearchSettings | None = None
        self.trials: dict[int, TrialRecord] = {}
        self.state = CREATED
        self.elapsed_s = 0.0
        self.tested: dict[str, Any] | None = None
        self.baselines: list[dict[str, Any]] = []
        self._session: tuple[float, float] | None = None  # elapsed before it, its start

    @classmethod
    def replay(cls, events: Iterable[Event]) -> "SearchState":
        """Apply all events of a journal."""
        state = cls()
        for event in events:
            state.apply(event)
        return state

    def apply(self, event: Event) -> None:
        """Take one event into account."""
        self._advance_clock(event)
        if event.trial is not None and event.kind == records.TRIAL_SUGGESTED:
            self.trials[event.trial] = _suggested(event.trial, event.payload)
        elif event.trial is not None and event.kind in _TRIAL_EVENTS:
            _TRIAL_EVENTS[event.kind](self.trials[event.trial], event.payload)
        elif event.kind == records.SEARCH_CREATED:
            self.created = event.payload
            self.settings = SearchSettings.from_document(event.payload["settings"])
        elif event.kind == records.SEARCH_STARTED:
            self.state = ACTIVE
        elif event.kind == records.SEARCH_ENDED:
            self.state = event.payload["state"]
        elif event.kind == records.BASELINE:
            self.baselines.append({"best_better_by": None, **event.payload})  # absent in old records
        elif event.kind == records.BEST_TESTED:
            self.tested = event.payload

    def in_state(self, *states: str) -> list[TrialRecord]:
        """List the trials in any of ``states``, by number."""
        return [trial for _, trial in sorted(self.trials.items()) if trial.state in states]

    def best(self) -> TrialRecord | None:
        """Return the best trial that keeps all constraints, or None: exactly the one that ``metaloom show`` stars.

        It is a finished one; where none has finished, a stopped one; where none has ended, one that has reported.
        """
        for states in ((records.FINISHED,), (records.STOPPED,), (records.RUNNING, records.WAITING)):
            ranked = self.ranked(*states)
            if ranked:
                return ranked[0] if self.broken(ranked[0]) == 0 else None
        return None

    def value(self, trial: TrialRecord) -> float | None:
        """Return the first objective of a trial's last report; None without one."""
        if self.settings is None or not trial.reports:
            return None
        return trial.reports[-1].metrics[self.settings.objectives[0].metric]

    def broken(self, trial: TrialRecord) -> float:
        """Return by how much a trial that has reported breaks the constraints in all; 0 if it keeps them."""
        constraints = self.settings.constraints if self.settings else ()
        return sum(max(0.0, one.violation(trial.reports[-1].metrics)) for one in constraints)

    def ranked(self, *states: str) -> list[TrialRecord]:
        """List the trials that have reported: feasible ones first, then by the first objective, then the earliest.

        Args:
            states: Those in any of these; by default the finished ones.
        """
        settings = self.settings
        if settings is None:
            return []

        def rank(trial: TrialRecord) -> tuple[float, float, int]:
            return (self.broken(trial), -settings.objectives[0].score(trial.reports[-1]), trial.number)

        reported = [trial for trial in self.in_state(*(states or (records.FINISHED,))) if trial.reports]
        return sorted(reported, key=rank)

    def pareto_front(self) -> list[TrialRecord]:
        """List the finished, feasible trials that no other one beats in every objective."""
        settings = self.settings
        if settings is None:
            return []
        scored = [
            (trial, [objective.score(trial.reports[-1]) for objective in settings.objectives])
            for trial in self.in_state(records.FINISHED)
            if self.broken(trial) == 0
        ]
        return [trial for trial, mine in scored if not any(_dominates(other, mine) for _, other in scored)]

    def elapsed_at(self, now: float) -> float:
        """Return the time spent up to ``now``, over all sessions; the time between sessions does not count."""
        if self._session is None:
            return self.elapsed_s
        before, began = self._session
        return before + max(0.0, now - began)  # a clock set back must not add to the budget

    def _advance_clock(self, event: Event) -> None:
        if event.kind == records.SEARCH_STARTED:
            self._session = (self.elapsed_s, event.time)
        self.elapsed_s = self.elapsed_at(event.time)
        if event.kind == records.SEARCH_ENDED:
            self._session = None


def _dominates(other: list[float], mine: list[float]) -> bool:
    return all(a >= b for a, b in zip(other, mine, strict=True)) and other != mine


def _suggested(number: int, payload: Mapping[str, Any]) -> TrialRecord:
    config = payload["config"]
    return TrialRecord(
        number=number,
        state=records.WAITING,
        knobs=payload["knobs"],
        params=payload["params"],
        distributions=payload["distributions"],
        origin=payload["sampler"],
        config=None if config is None else TrialConfig.from_json(config),
    )


def _started(trial: TrialRecord, payload: Mapping[str, Any]) -> None:
    trial.state, trial.attempts, trial.reason = records.RUNNING, payload["attempt"], None
    trial.exploited = None


def _reported(trial: TrialRecord, payload: Mapping[str, Any]) -> None:
    trial.reports.append(Report.from_json(payload["report"]))


def _stopped(trial: TrialRecord, payload: Mapping[str, Any]) -> None:
    trial.state, trial.reason, trial.values = records.STOPPED, payload["reason"], payload["values"]


def _finished(trial: TrialRecord, payload: Mapping[str, Any]) -> None:
    trial.state, trial.reason, trial.values = records.FINISHED, None, payload["values"]


def _failed(trial: TrialRecord, payload: Mapping[str, Any]) -> None:
    trial.state, trial.reason, trial.traceback = records.FAILED, payload["reason"], payload["traceback"]


def _interrupted(trial: TrialRecord, payload: Mapping[str, Any]) -> None:
    trial.state, trial.reason = records.WAITING, payload["reason"]
    trial.lost += bool(payload["lost"])


def _exploited(trial: TrialRecord, payload: Mapping[str, Any]) -> None:
    trial.state, trial.exploited = records.WAITING, dict(payload)
    trial.knobs, trial.params, trial.generation = payload["knobs"], payload["params"], payload["generation"]
    trial.config, trial.distributions = TrialConfig.from_json(payload["config"]), payload["distributions"]


_TRIAL_EVENTS = {
    records.TRIAL_STARTED: _started,
    records.TRIAL_REPORTED: _reported,
    records.TRIAL_STOPPED: _stopped,
    records.TRIAL_FINISHED: _finished,
    records.TRIAL_FAILED: _failed,
    records.TRIAL_INTERRUPTED: _interrupted,
    records.TRIAL_EXPLOITED: _exploited,
}
