"""Runs and sessions come from the journal's events: slots, resumes, kills, and the time of the search."""

from pathlib import Path
from typing import Any

import pytest

from metaloom.dashboards.store_reader import OpenStore
from metaloom.dashboards.timeline import INTERRUPTED, LOST, Timeline, read_timeline, timeline_of
from metaloom.orchestrator.journal import Journal
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event
from metaloom.workers.records.search import SearchRecord
from tests.dashboards.conftest import SUGGESTED, report

Told = tuple[float, str, int | None, dict[str, Any]]
SECTION = {"trials": 3, "objectives": [{"metric": records.VALIDATION_ACCURACY, "direction": "maximize"}]}
CREATED = {"settings": SECTION, "experiment": {"seed": 0}, "seed": 0}


def reported(step: int, worker: str) -> dict[str, Any]:
    return {"report": report(step, 0.5), "worker": worker}


# Two sessions: the first is killed after trial 0 has finished and while 1 and 2 run; its last sign is at 50.
STORY: list[Told] = [
    (0.0, records.SEARCH_CREATED, None, CREATED),
    (10.0, records.SEARCH_STARTED, None, {"pid": 7, "host": "here", "spent_s": 0.0}),
    (11.0, records.TRIAL_SUGGESTED, 0, {"knobs": {}, **SUGGESTED}),
    (20.0, records.TRIAL_STARTED, 0, {"attempt": 1, "worker": "ray"}),
    (21.0, records.TRIAL_SUGGESTED, 1, {"knobs": {}, **SUGGESTED}),
    (21.0, records.TRIAL_STARTED, 1, {"attempt": 1, "worker": "ray"}),
    (30.0, records.TRIAL_REPORTED, 0, reported(10, "here:100")),
    (30.0, records.TRIAL_FINISHED, 0, {"value": 0.5, "values": {records.VALIDATION_ACCURACY: 0.5}}),
    (31.0, records.TRIAL_SUGGESTED, 2, {"knobs": {}, **SUGGESTED}),
    (32.0, records.TRIAL_STARTED, 2, {"attempt": 1, "worker": "ray"}),
    (40.0, records.TRIAL_REPORTED, 1, reported(10, "here:101")),
    (50.0, records.TRIAL_REPORTED, 2, reported(10, "here:100")),
    (1000.0, records.TRIAL_INTERRUPTED, 1, {"reason": records.KILLED, "lost": False}),
    (1000.0, records.TRIAL_INTERRUPTED, 2, {"reason": records.KILLED, "lost": False}),
    (1000.0, records.SEARCH_STARTED, None, {"pid": 8, "host": "here", "spent_s": 30.0}),
    (1010.0, records.TRIAL_STARTED, 1, {"attempt": 2, "worker": "ray"}),
    (1020.0, records.TRIAL_INTERRUPTED, 1, {"reason": "its process ended", "lost": True}),
    (1025.0, records.TRIAL_STARTED, 2, {"attempt": 2, "worker": "ray"}),
    (1030.0, records.TRIAL_FAILED, 2, {"reason": "ValueError: no", "traceback": "", "step": 10}),
    (1031.0, records.SEARCH_ENDED, None, {"state": records.INTERRUPTED, "reason": "Ctrl-C"}),
]


def events(story: list[Told] = STORY) -> list[Event]:
    return [Event(number + 1, at, trial, kind, load) for number, (at, kind, trial, load) in enumerate(story)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "searches" / "first"
    folder.mkdir(parents=True)
    with Journal(folder) as journal:
        journal.append_all(events())
    return folder


def test_each_run_has_its_slot_its_worker_and_its_ending() -> None:
    found = [
        (run.trial, run.attempt, run.slot, run.worker, run.reports, run.ending) for run in Timeline.of(events()).runs
    ]
    assert found == [
        (0, 1, 0, "here:100", 1, records.FINISHED),
        (1, 1, 1, "here:101", 1, INTERRUPTED),
        (2, 1, 0, "here:100", 1, INTERRUPTED),
        (1, 2, 0, "ray", 0, LOST),
        (2, 2, 0, "ray", 0, records.FAILED),
    ]


def test_what_a_kill_cut_off_ends_at_the_last_sign_of_its_driver() -> None:
    timeline = Timeline.of(events())
    assert [(run.began, run.ended) for run in timeline.runs] == [
        (20.0, 30.0), (21.0, 50.0), (32.0, 50.0), (1010.0, 1020.0), (1025.0, 1030.0),
    ]  # fmt: skip
    assert [(one.process, one.began, one.ended, one.ending) for one in timeline.sessions] == [
        ("here:7", 10.0, 50.0, "killed"), ("here:8", 1000.0, 1031.0, records.INTERRUPTED),
    ]  # fmt: skip


def test_the_time_of_the_search_is_that_of_its_record() -> None:
    timeline = Timeline.of(events())
    assert timeline.reported == {0: 10.0, 1: 20.0, 2: 30.0}  # from the first trial of the session on
    assert [(run.spent, run.spent_at_end) for run in timeline.runs][1:4] == [(1.0, 30.0), (12.0, 30.0), (30.0, 40.0)]
    for count in range(2, len(STORY) + 1):
        if STORY[count - 1][3].get("reason") != records.KILLED:
            assert Timeline.of(events()[:count]).spent == SearchRecord.replay(events()[:count]).elapsed_s


def test_a_running_search_has_open_runs() -> None:
    timeline = Timeline.of(events()[:12])
    assert [run.ending for run in timeline.runs] == [records.FINISHED, "", ""]
    assert timeline.sessions[-1].ended is None and timeline.last_sign == 50.0


def test_the_journal_is_read_without_its_reports(folder: Path, tmp_path: Path) -> None:
    assert read_timeline(folder) == Timeline.of(events())
    store = OpenStore(tmp_path)
    found = timeline_of(store, "first")
    assert found == Timeline.of(events()) and timeline_of(store, "first") is found
    with Journal(folder) as journal:
        journal.append_all(
            [Event(0, 1040.0, None, records.SEARCH_STARTED, {"pid": 1, "host": "here", "spent_s": 45.0})]
        )
    assert len(timeline_of(store, "first").sessions) == 3


def test_a_damaged_journal_is_read_from_its_copies(folder: Path) -> None:
    database = folder / records.JOURNAL_FILE
    database.write_bytes(b"\0" * 4096)
    assert read_timeline(folder).runs == Timeline.of(events()).runs
