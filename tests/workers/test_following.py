"""A search that is followed has the record that reading its whole journal gives, whatever happens to its files."""

import copy
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaloom.orchestrator.journal import Journal
from metaloom.orchestrator.repair import repair
from metaloom.search_spaces.sections.settings import SearchSettings
from metaloom.workers.records import following, names
from metaloom.workers.records.following import FollowedSearch, journal_version
from metaloom.workers.records.journal import Event, RecordsError, Values, event_of
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial import Report
from tests.support.journals import flip, rewrite

METRIC = names.VALIDATION_ACCURACY
CREATED = {"settings": SearchSettings(trials=9, patience=2).to_document(), "seed": 0}
KNOBS = {"knobs": {"a": 1}, "params": {"a": 1}, "distributions": {}, "config": None}
STORED = Path(__file__).parents[1] / "fixtures"


def report(step: int) -> dict[str, Any]:
    parts = {names.part_name(step - 1, step): {"bytes": step, "sha256": ""}}
    return Report(step, {METRIC: 0.5}, (0, 1), (0.5,), 1, 1.0, False, ("note",), parts=parts).to_json()


KINDS: dict[str, dict[str, Any]] = {
    names.TRIAL_SUGGESTED: {**KNOBS, "sampler": "tpe"},
    names.TRIAL_STARTED: {"attempt": 1, "worker": "one"},
    names.TRIAL_STOPPED: {"reason": names.OUT_OF_TIME, "values": {METRIC: 0.5}},
    names.TRIAL_FINISHED: {"values": {METRIC: 0.5}},
    names.TRIAL_FAILED: {"reason": "broken", "traceback": "..."},
    names.TRIAL_INTERRUPTED: {"reason": "its worker died", "lost": True},
    names.TRIAL_EXPLOITED: {**KNOBS, "generation": 1, "donor": 0},
    names.TRIAL_REWROTE: {"parts": {names.part_name(0, 2): {"bytes": 9, "sha256": "b"}}},
    names.TRIAL_WARNED: {"warnings": ["damaged"]},
    names.NOTED: {"notes": ["mine"]},
    "of_a_newer_version": {},
}
OF_SEARCHES: dict[str, dict[str, Any]] = {
    names.SEARCH_STARTED: {"pid": 1, "host": "h", "spent_s": 3.0},
    names.SEARCH_ENDED: {"state": names.INTERRUPTED, "no_gain": True},
    names.SEARCH_EXTENDED: {"time_budget_s": None, "asked": 12},
    names.BASELINE: {"method": "fine_tuning", "evaluation": {}},
    names.BEST_TESTED: {"trial": 0, "evaluation": {}},
    names.JOURNAL_REPAIRED: {"lines": ["mended"]},
    names.RENAMED: {"before": "former"},
    names.NOTED: {"notes": ["ours"]},
}
of_trials = st.builds(lambda kind, trial: (kind, trial, KINDS[kind]), st.sampled_from(sorted(KINDS)), st.integers(0, 3))
reports = st.builds(
    lambda trial, step: (names.TRIAL_REPORTED, trial, {"report": report(step)}), st.integers(0, 3), st.integers(1, 4)
)
of_searches = st.sampled_from([(kind, None, load) for kind, load in OF_SEARCHES.items()])
Told = tuple[str, int | None, dict[str, Any]]


def append(folder: Path, *told: Told) -> None:
    with Journal(folder) as journal:
        journal.append_all([Event(0, 100.0 + n, trial, kind, load) for n, (kind, trial, load) in enumerate(told)])


def begun(folder: Path, *told: Told) -> Path:
    folder.mkdir()
    append(folder, (names.SEARCH_CREATED, None, CREATED), *told)
    return folder


def checked(search: FollowedSearch, folder: Path) -> SearchRecord:
    record = search.read()
    assert record == SearchRecord.read(folder)
    return record


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.one_of(of_trials, reports, of_searches), min_size=1, max_size=5), max_size=6))
def test_every_prefix_is_that_of_the_whole_journal(batches: Sequence[Sequence[Told]]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = begun(Path(temporary) / "search")
        search = FollowedSearch(folder)
        given_out = [checked(search, folder)]
        kept = [copy.deepcopy(given_out[0])]
        for batch in batches:
            append(folder, *batch)
            given_out.append(checked(search, folder))
            kept.append(copy.deepcopy(given_out[-1]))
        assert given_out == kept  # none was changed by what came later


def test_new_events_alone_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begun(tmp_path / "search", (names.TRIAL_SUGGESTED, 0, KINDS[names.TRIAL_SUGGESTED]))
    search = FollowedSearch(folder)
    first = search.read()
    read: list[int] = []

    def counted(row: Values) -> Event:
        read.append(row[0])
        return event_of(row)

    monkeypatch.setattr(following, "event_of", counted)
    assert search.read() is first
    append(folder, (names.TRIAL_STARTED, 1, KINDS[names.TRIAL_STARTED]))
    second = search.read()
    assert read == [3]
    assert second.trials[0] is first.trials[0] and 1 not in first.trials


def test_a_journal_that_was_replaced_damaged_or_repaired_is_read_as_a_whole(tmp_path: Path) -> None:
    folder = begun(tmp_path / "search", *[(kind, 0, load) for kind, load in KINDS.items()])
    search = FollowedSearch(folder)
    checked(search, folder)
    rewrite(folder, lambda events: [*events[:3], *events[5:]])  # fewer, and others
    checked(search, folder)
    rewrite(folder, lambda events: [*events, *events[1:4]])  # more, other digests
    checked(search, folder)
    journal = folder / names.JOURNAL_FILE
    content = journal.read_bytes()
    flip(journal, content.rindex(b"broken"))
    assert checked(search, folder).warnings
    append_to_log = (folder / names.JOURNAL_LOG).read_bytes()
    repair(folder)
    assert len((folder / names.JOURNAL_LOG).read_bytes()) >= len(append_to_log)
    checked(search, folder)
    append(folder, (names.TRIAL_WARNED, 1, KINDS[names.TRIAL_WARNED]))
    checked(search, folder)


def test_a_database_behind_its_log_is_read_with_it(tmp_path: Path) -> None:
    folder = begun(tmp_path / "search", (names.TRIAL_SUGGESTED, 0, KINDS[names.TRIAL_SUGGESTED]))
    search = FollowedSearch(folder)
    checked(search, folder)
    append(folder, (names.TRIAL_STARTED, 0, KINDS[names.TRIAL_STARTED]))
    with closing(sqlite3.connect(folder / names.JOURNAL_FILE)) as connection, connection:
        connection.execute(f"DELETE FROM {names.EVENTS_TABLE} WHERE id = 3")
    assert len(checked(search, folder).warnings) == 1
    (folder / names.JOURNAL_FILE).unlink()
    checked(search, folder)


def test_a_missing_journal_is_an_error_until_it_is_back(tmp_path: Path) -> None:
    folder = begun(tmp_path / "search")
    search = FollowedSearch(folder)
    record = search.read()
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(RecordsError):
        search.read()
    (tmp_path / "elsewhere").rename(folder)
    assert search.read() == record


@pytest.mark.parametrize("version", ["stored_0_1", "stored_0_2"])
def test_journals_of_earlier_versions(tmp_path: Path, version: str) -> None:
    for name in ("finished", "interrupted"):
        folder = Path(shutil.copytree(STORED / version / "store" / "searches" / name, tmp_path / name))
        search = FollowedSearch(folder)
        checked(search, folder)
        append(folder, (names.NOTED, None, {"notes": ["new"]}))  # which gives an old journal its digests
        assert checked(search, folder).remarks == ["new"]
        append(folder, (names.NOTED, None, {"notes": ["newer"]}))
        assert checked(search, folder).remarks == ["newer"]


def test_threads_read_while_a_search_writes(tmp_path: Path) -> None:
    folder = begun(tmp_path / "search")
    search, ended = FollowedSearch(folder), threading.Event()
    seen: list[list[int]] = [[] for _ in range(3)]

    def follow(counts: list[int]) -> None:
        while not ended.is_set():
            counts.append(len(search.read().trials))

    threads = [threading.Thread(target=follow, args=(counts,)) for counts in seen]
    for thread in threads:
        thread.start()
    for number in range(60):
        append(folder, (names.TRIAL_SUGGESTED, number, KINDS[names.TRIAL_SUGGESTED]))
    ended.set()
    for thread in threads:
        thread.join()
    assert all(counts == sorted(counts) for counts in seen)
    assert len(checked(search, folder).trials) == 60


def test_the_version_changes_with_every_event(tmp_path: Path) -> None:
    folder = begun(tmp_path / "search")
    versions = [journal_version(folder)]
    with Journal(folder) as journal:
        for _ in range(50):
            journal.append(names.NOTED, {"notes": []})
            versions.append(journal_version(folder))
    assert len(set(versions)) == len(versions)
