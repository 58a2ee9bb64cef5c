"""When each trial ran, on which worker and how that ended, by the events of a search's journal."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from metaloom.dashboards import queries
from metaloom.dashboards.store_reader import OpenStore
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Damaged, Event, Values, event_of, reading
from metaloom.workers.records.journal_sources import read_journal
from metaloom.workers.records.search import SearchRecord

INTERRUPTED, LOST, EXCHANGED = "interrupted", "worker lost", "exchanged"
ENDS = {
    records.TRIAL_FINISHED: records.FINISHED,
    records.TRIAL_STOPPED: records.STOPPED,
    records.TRIAL_FAILED: records.FAILED,
    records.TRIAL_INTERRUPTED: INTERRUPTED,
    records.TRIAL_EXPLOITED: EXCHANGED,
}
# Only the worker of a report is needed here; its scores would be most of a journal's text.
LIGHT_ROWS = f"""
    SELECT id, time, trial, kind, CASE kind
        WHEN '{records.TRIAL_REPORTED}' THEN json_object('worker', json_extract(payload, '$.worker'))
        WHEN '{records.TRIAL_SUGGESTED}' THEN '{{}}'
        ELSE payload END
    FROM {records.EVENTS_TABLE} ORDER BY id
"""


@dataclass
class TrialRun:
    """One uninterrupted run of a trial.

    Attributes:
        trial: Its number.
        attempt: From 1; a later one goes on from a checkpoint.
        slot: From 0: the lowest that no other running trial held when it began.
        began: Seconds since the epoch, as ``ended``, which is None while it runs.
        spent: Seconds of the search at its beginning, without the time between sessions; ``spent_at_end`` at its end.
        worker: The process that ran it, as host and number; the executor's name before the first report.
        reports: How many reports it has made.
        ending: ``finished``, ``stopped``, ``failed``, ``interrupted``, ``worker lost`` or ``exchanged``; empty while it
            runs.
        reason: Of this ending.
    """

    trial: int
    attempt: int
    slot: int
    began: float
    spent: float
    worker: str = ""
    reports: int = 0
    ended: float | None = None
    spent_at_end: float | None = None
    ending: str = ""
    reason: str = ""


@dataclass
class DriverSession:
    """One session of a search's driver; ``ended`` is None while it runs, and ``ending`` is empty."""

    began: float
    spent: float
    process: str
    ended: float | None = None
    spent_at_end: float | None = None
    ending: str = ""


@dataclass
class Timeline:
    """The runs of the trials and the sessions of the driver, in the order of their beginnings.

    Attributes:
        last_sign: Time of the last event that a living driver has written.
        spent: Seconds of the search at that event.
        reported: Seconds of the search at the last report of each trial.
    """

    runs: list[TrialRun] = field(default_factory=list)
    sessions: list[DriverSession] = field(default_factory=list)
    last_sign: float = 0.0
    spent: float = 0.0
    reported: dict[int, float] = field(default_factory=dict)
    _open: dict[int, TrialRun] = field(default_factory=dict)
    _search: SearchRecord = field(default_factory=SearchRecord)  # for its clock alone

    @classmethod
    def of(cls, events: Iterable[Event]) -> "Timeline":
        """Return the timeline of a journal's events; reports need their worker only."""
        timeline = cls()
        for event in events:
            timeline.apply(event)
        return timeline

    def apply(self, event: Event) -> None:
        """Take one event."""
        killed = event.kind == records.TRIAL_INTERRUPTED and event.payload.get("reason") == records.KILLED
        if event.kind == records.SEARCH_STARTED:
            self._end_session("killed")
        self._search.advance_clock(event)
        if event.trial is not None:
            self._take_trial(event, event.trial, killed)
        if not killed:  # the next session has noted it
            self.last_sign, self.spent = event.time, self._search.elapsed_s
        if event.kind == records.SEARCH_STARTED:
            process = f"{event.payload.get('host', '')}:{event.payload.get('pid', '')}"
            self.sessions.append(DriverSession(event.time, self.spent, process))
        elif event.kind == records.SEARCH_ENDED:
            self._end_session(str(event.payload["state"]))

    def _take_trial(self, event: Event, trial: int, killed: bool) -> None:
        if event.kind == records.TRIAL_STARTED:
            taken = {run.slot for run in self._open.values()}
            slot = next(number for number in range(len(taken) + 1) if number not in taken)
            attempt, worker = int(event.payload["attempt"]), str(event.payload.get("worker") or "")
            run = TrialRun(trial, attempt, slot, event.time, self._search.elapsed_s, worker)
            self._open[trial] = run
            self.runs.append(run)
        elif event.kind == records.TRIAL_REPORTED:
            self.reported[trial] = self._search.elapsed_s
            if trial in self._open:
                self._open[trial].worker = str(event.payload.get("worker") or self._open[trial].worker)
                self._open[trial].reports += 1
        elif event.kind in ENDS and trial in self._open:
            run = self._open.pop(trial)
            run.ended = self.last_sign if killed else event.time
            run.spent_at_end = self.spent if killed else self._search.elapsed_s
            run.ending = LOST if event.payload.get("lost") else ENDS[event.kind]
            run.reason = str(event.payload.get("reason") or "")

    def _end_session(self, ending: str) -> None:
        if self.sessions and self.sessions[-1].ended is None:
            last = self.sessions[-1]
            last.ended, last.spent_at_end, last.ending = self.last_sign, self.spent, ending


def read_timeline(folder: Path, *, damaged: bool = False) -> Timeline:
    """Read the timeline of the search in ``folder``.

    Args:
        folder: The search's.
        damaged: Whether its journal is known to be damaged; its copies are then read too.

    Raises:
        RecordsError: The journal cannot be read.
    """
    rows: list[Values] = []
    try:
        if not damaged:
            with reading(folder / records.JOURNAL_FILE) as connection:
                rows = connection.execute(LIGHT_ROWS).fetchall()
    except Damaged:
        rows = []
    return Timeline.of(map(event_of, rows or read_journal(folder).rows))


_READ: dict[tuple[Path, str], tuple[str, Timeline]] = {}  # by store and search: the version and what was read at it
_LOCK = threading.Lock()


def timeline_of(store: OpenStore, name: str) -> Timeline:
    """Return the timeline of a search, read once for each version of it; no reader may change it."""
    version, damaged = store.version(name), bool(store.record(name).warnings)
    with _LOCK:
        cached = _READ.get((store.path, name))
        if cached is None or cached[0] != version:
            cached = (version, read_timeline(queries.search_folder(store.path, name), damaged=damaged))
            _READ[store.path, name] = cached
    return cached[1]
