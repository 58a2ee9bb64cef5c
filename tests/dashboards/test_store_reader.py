"""An open store shows what the queries show, without reading again what has not changed."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from metaloom.dashboards import queries, rows, store_reader
from metaloom.dashboards.store_reader import OpenStore
from metaloom.orchestrator.journal import Journal
from metaloom.workers.records import following, journal_sources
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import RecordsError, reading
from metaloom.workers.records.search import SearchRecord
from tests.dashboards.conftest import SUGGESTED, Write, story

RUNNING_TRIAL: list[tuple[str, int | None, dict[str, Any]]] = [
    (records.TRIAL_SUGGESTED, 0, {"knobs": {}, **SUGGESTED}),
    (records.TRIAL_STARTED, 0, {"attempt": 1, "worker": ""}),
]


@contextmanager
def driver() -> "Iterator[subprocess.Popen[bytes]]":
    """A process that lives until it is killed."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]) as process:
        yield process
        process.kill()


def begun_by(process: "subprocess.Popen[bytes]") -> tuple[str, None, dict[str, Any]]:
    return records.SEARCH_STARTED, None, {"pid": process.pid, "host": socket.gethostname(), "spent_s": 0.0}


def test_records_and_rows_are_those_of_the_queries(tmp_path: Path, write_search: Write) -> None:
    write_search("ended", story({0: 0.5, 1: 0.7}))
    write_search("orphan", [(records.SEARCH_STARTED, None, {"pid": 1, "host": "-", "spent_s": 0.0}), *RUNNING_TRIAL])
    (tmp_path / "searches" / "empty").mkdir()
    broken = write_search("broken", [])
    for file in list(broken.iterdir()):
        file.write_bytes(b"no journal" * 10)
    (broken / records.TRIALS_FOLDER / "0000").mkdir(parents=True)
    store = OpenStore(tmp_path)
    store.warm()
    for name in ("ended", "orphan"):
        assert store.record(name) == queries.search_record(tmp_path, name)
    assert [rows.to_json(row) for row in store.listed()] == queries.list_searches(tmp_path)
    assert {row.name: row.state for row in store.listed()}["broken"] == records.UNREADABLE
    with pytest.raises(queries.QueryError, match="no records"):
        store.record("empty")
    with pytest.raises(RecordsError):
        store.record("broken")
    with pytest.raises(queries.QueryError, match="orphan"):
        store.version("orphans")
    assert store.version("empty") and store.version("broken")


def test_what_has_not_changed_is_not_read_again(
    tmp_path: Path, write_search: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = write_search("first", story({0: 0.5})), OpenStore(tmp_path)
    before, version, listed = store.record("first"), store.version("first"), store.listed()
    opened: list[Path] = []

    def counted(path: Path) -> Any:
        opened.append(path)
        return reading(path)

    monkeypatch.setattr(journal_sources, "read_database", lambda path: pytest.fail("the whole journal was read"))
    monkeypatch.setattr(following, "reading", counted)
    assert (store.record("first") is before, store.version("first"), store.listed()) == (True, version, listed)
    assert not opened
    with Journal(folder) as journal:
        journal.append(records.NOTED, {"notes": ["mine"]})
    assert store.version("first") != version
    assert store.record("first").remarks == ["mine"] and before.remarks == []
    assert len(opened) == 1


def test_a_killed_driver_is_seen_and_a_resume_too(tmp_path: Path, write_search: Write) -> None:
    with driver() as first:
        time.sleep(0.1)  # so that the process is older than the event
        folder = write_search("live", [])
        with Journal(folder) as journal:
            for kind, trial, load in (begun_by(first), *RUNNING_TRIAL):
                journal.append(kind, load, trial=trial)
        store = OpenStore(tmp_path)
        alive = store.version("live")
        record = store.record("live")
        assert (record.state, record.trials[0].state) == (records.RUNNING, records.RUNNING)
        first.kill()
        first.wait()
    assert store.version("live") != alive
    found = store.record("live")
    assert (found.state, found.trials[0].state) == (records.INTERRUPTED, records.WAITING)
    assert (record.state, record.trials[0].state) == (records.RUNNING, records.RUNNING)
    assert store.listed()[0].state == records.INTERRUPTED
    with driver() as second, Journal(folder) as journal:
        journal.append(records.SEARCH_STARTED, begun_by(second)[2])
        assert store.record("live").state == records.RUNNING


def test_renamed_deleted_and_replaced_searches(tmp_path: Path, write_search: Write) -> None:
    folder, store = write_search("first", story({0: 0.5})), OpenStore(tmp_path)
    assert store.record("first").trials.keys() == {0}
    folder.rename(folder.with_name("second"))
    assert [row.name for row in store.listed()] == ["second"]
    with pytest.raises(queries.QueryError):
        store.record("first")
    write_search("first", story({0: 0.5, 1: 0.6}))
    assert store.record("first").trials.keys() == {0, 1}
    shutil.rmtree(folder)
    assert [row.name for row in store.listed()] == ["second"]


def test_few_records_are_kept_of_many_searches(
    tmp_path: Path, write_search: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_reader, "MOST_RECORDS", 3)
    for number in range(6):
        write_search(f"s{number}", story({0: 0.1 * number}))
    store = OpenStore(tmp_path)
    found = store.listed()
    assert len(found) == 6
    last = store.record("s0")
    assert store.record("s0") is last
    assert len(store._followed) == len(store._known) == 3
    monkeypatch.setattr(SearchRecord, "read", lambda folder, found: pytest.fail("a search was read again"))
    assert store.listed() == found
    assert len({store.version(row.name) for row in found}) == 6


def test_what_is_derived_from_a_record_is_computed_once(tmp_path: Path, write_search: Write) -> None:
    folder, store, asked = write_search("first", story({0: 0.5})), OpenStore(tmp_path), list[int]()

    def count(record: SearchRecord) -> int:
        asked.append(len(record.trials))
        return asked[-1]

    assert [store.derived("first", count) for _ in range(3)] == [1, 1, 1]
    with Journal(folder) as journal:
        journal.append(records.TRIAL_SUGGESTED, {"knobs": {}, **SUGGESTED}, trial=1)
    assert store.derived("first", count) == 2
    assert asked == [1, 2]
