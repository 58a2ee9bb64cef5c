"""A search as its journal tells it: events in, one record a trial out.

The journal is append-only, so reading is one pass: each kind of event changes the
search's or one trial's record. Nothing here writes, and nothing asks a server.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from metaloom.learners.errors import BadEnvironment
from metaloom.workers.records import names as records


class RecordsError(BadEnvironment):
    """The records of a search cannot be read."""


@dataclass(frozen=True)
class Event:
    """One line of the journal."""

    id: int
    time: float
    trial: int | None
    kind: str
    payload: Mapping[str, Any]


@dataclass
class TrialHistory:
    """What became of one trial so far.

    Attributes:
        reports: Report documents by outer step, oldest first; a step repeated after a resume counts once.
        values: Objectives that it ended with; empty before its end.
        notes: What its reports say beside numbers, such as that it stopped early; why it was stopped.
        warnings: What went wrong and was put right, such as a damaged checkpoint.
    """

    id: int
    state: str = records.WAITING
    knobs: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    reports: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    attempts: int = 0
    error: str | None = None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def last(self) -> Mapping[str, Any]:
        """The newest report; empty before the first."""
        return next(reversed(self.reports.values()), {})


@dataclass
class SearchHistory:
    """What became of one search so far.

    Attributes:
        settings: The search section as the search uses it: trials, objectives, constraints, sampler.
        experiment: The whole experiment, validated.
        asked: How many trials it was asked for.
        process: PID, host and time of the driver that ran it last.
        tested: Payload of the test of the best trial; empty before it.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    experiment: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    asked: int | None = None
    created: float | None = None
    updated: float | None = None
    state: str = records.WAITING
    process: dict[str, Any] = field(default_factory=dict)
    trials: dict[int, TrialHistory] = field(default_factory=dict)
    baselines: list[dict[str, Any]] = field(default_factory=list)
    tested: dict[str, Any] = field(default_factory=dict)

    def trial(self, number: int) -> TrialHistory:
        """Return the record of trial ``number``, begun on first sight."""
        return self.trials.setdefault(number, TrialHistory(number))


def read_journal(path: Path) -> list[Event]:
    """Read every event of the journal at ``path``, oldest first.

    Raises:
        RecordsError: There is no readable journal at ``path``.
    """
    query = f"SELECT id, time, trial, kind, payload FROM {records.EVENTS_TABLE} ORDER BY id"
    return [Event(row[0], row[1], row[2], row[3], json.loads(row[4])) for row in _rows(path, query)]


def read_mark(path: Path, name: str) -> dict[str, Any]:
    """Return the state that projection ``name`` left in the journal; empty if it never ran."""
    rows = _rows(path, f"SELECT state FROM {records.MARKS_TABLE} WHERE name = ?", name)
    state = json.loads(rows[0][0]) if rows and rows[0][0] else {}
    return dict(state)


def _rows(path: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    """Run one reading query; a store on a read-only medium is opened as immutable."""
    modes = ("mode=ro", "mode=ro&immutable=1")
    for mode in modes:
        try:
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=30)
        except sqlite3.Error as error:
            raise RecordsError(f"{path}: {error}") from error
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            # WAL needs its side file beside the database; where that cannot be made, nobody writes either.
            if mode == modes[-1] or "unable to open" not in str(error):
                raise RecordsError(f"{path} cannot be read: {error}") from error
        except sqlite3.DatabaseError as error:
            raise RecordsError(f"{path} is no journal, or is damaged: {error}") from error
        finally:
            connection.close()
    raise AssertionError("unreachable: the last mode returns or raises")


def fold(name: str, events: Iterable[Event]) -> SearchHistory:
    """Tell the story of ``events``; an event of an unknown kind (of a newer version) changes nothing."""
    history = SearchHistory(name)
    for event in events:
        history.updated = event.time
        if event.trial is not None and event.kind in ON_TRIAL:
            ON_TRIAL[event.kind](history.trial(event.trial), event)
        elif event.kind in ON_SEARCH:
            ON_SEARCH[event.kind](history, event)
    if history.state == records.RUNNING and not is_alive(history.process):
        history.state = "interrupted"
    if history.state != records.RUNNING:
        for trial in history.trials.values():
            if trial.state == records.RUNNING:
                trial.state = records.WAITING  # nobody runs it; a resume goes on with it
    return history


def is_alive(process: Mapping[str, Any]) -> bool:
    """Say whether the driver that ``search_started`` named still runs; one on another host is believed."""
    import socket

    if process.get("host") not in (None, socket.gethostname()):
        return True
    pid = process.get("pid")
    try:
        found = psutil.Process(int(pid or 0))
        # A process begun after the event has only inherited the number; a zombie has ended.
        inherited = found.create_time() > float(process["time"]) + 1.0
        return pid is not None and not inherited and found.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _created(history: SearchHistory, event: Event) -> None:
    history.created = event.time
    history.experiment = dict(event.payload.get("experiment") or {})
    history.seed = event.payload.get("seed")
    history.settings = dict(event.payload.get("settings") or {})
    history.asked = event.payload.get("trials", history.settings.get("trials"))


def _started(history: SearchHistory, event: Event) -> None:
    history.state = records.RUNNING
    history.process = {**event.payload, "time": event.time}
    history.asked = event.payload.get("trials", history.asked)


def _ended(history: SearchHistory, event: Event) -> None:
    history.state = str(event.payload.get("state", records.FINISHED))


def _baseline(history: SearchHistory, event: Event) -> None:
    known = [one for one in history.baselines if one.get("method") != event.payload.get("method")]
    history.baselines = [*known, {"best_better_by": None, **event.payload}]  # absent in old records


def _tested(history: SearchHistory, event: Event) -> None:
    history.tested = dict(event.payload)


def _suggested(trial: TrialHistory, event: Event) -> None:
    trial.knobs = dict(event.payload.get("knobs") or {})
    trial.config = dict(event.payload.get("config") or {})


def _trial_started(trial: TrialHistory, event: Event) -> None:
    trial.state = records.RUNNING
    trial.error = None
    trial.attempts += 1


def _reported(trial: TrialHistory, event: Event) -> None:
    report = event.payload.get("report", event.payload)
    trial.state = records.RUNNING
    repeated = trial.reports.pop(int(report["step"]), None)  # so that the newest is the last one
    trial.reports[int(report["step"])] = report
    if repeated is None:
        trial.notes += report.get("notes", ())


def _stopped(trial: TrialHistory, event: Event) -> None:
    trial.state = records.STOPPED
    trial.notes.append(f"stopped: {event.payload.get('reason') or 'no reason was given'}")
    trial.values = dict(event.payload.get("values") or {})


def _finished(trial: TrialHistory, event: Event) -> None:
    trial.state = records.FINISHED
    trial.values = dict(event.payload.get("values") or {})


def _failed(trial: TrialHistory, event: Event) -> None:
    trial.state = records.FAILED
    trial.error = str(event.payload.get("reason", "failed without a reason"))


def _interrupted(trial: TrialHistory, event: Event) -> None:
    trial.state = records.WAITING


def _exploited(trial: TrialHistory, event: Event) -> None:
    """Population-based training has moved the trial on: other knobs from here."""
    _suggested(trial, event)
    trial.state = records.WAITING


def _warned(trial: TrialHistory, event: Event) -> None:
    trial.warnings += event.payload["warnings"]


ON_SEARCH: dict[str, Callable[[SearchHistory, Event], None]] = {
    records.SEARCH_CREATED: _created,
    records.SEARCH_STARTED: _started,
    records.SEARCH_ENDED: _ended,
    records.BASELINE: _baseline,
    records.BEST_TESTED: _tested,
}
ON_TRIAL: dict[str, Callable[[TrialHistory, Event], None]] = {
    records.TRIAL_SUGGESTED: _suggested,
    records.TRIAL_STARTED: _trial_started,
    records.TRIAL_REPORTED: _reported,
    records.TRIAL_STOPPED: _stopped,
    records.TRIAL_FINISHED: _finished,
    records.TRIAL_FAILED: _failed,
    records.TRIAL_INTERRUPTED: _interrupted,
    records.TRIAL_EXPLOITED: _exploited,
    records.TRIAL_WARNED: _warned,
}
