"""Searches are removed, renamed and annotated, and MLflow and Optuna with them, also over a kill at any step."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import optuna
import pytest

from metaloom.dashboards import queries
from metaloom.orchestrator import housekeeping
from metaloom.orchestrator.command_line import cli
from metaloom.orchestrator.errors import SearchError, StoreError
from metaloom.orchestrator.journal import Journal, writer_lock
from metaloom.orchestrator.proposing import mirror
from metaloom.orchestrator.tracking.databases import sqlite_uri
from metaloom.orchestrator.tracking.outboxes import synchronize
from metaloom.workers.records import names as records
from tests.dashboards.conftest import story
from tests.orchestrator.test_stored_by_0_2 import EXPECTED, STORED, Document, assert_same, document
from tests.support.processes import Process
from tests.support.tracked import ENDED, STARTED, Search

__all__ = ["document"]  # the fixture


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the searches ``first`` and ``other``, both in MLflow and in Optuna's database."""
    store = tmp_path_factory.mktemp("prepared") / "store"
    for name in ("first", "other"):
        made = Search(store, name)
        made.tell(STARTED, *story({0: 0.7, 1: 0.9}), ENDED)
        made.journal.close()
        assert synchronize(store, name, warn=print, others=mirror.projections) == ([], [])
    return store


@pytest.fixture
def store(prepared: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it."""
    yield Path(shutil.copytree(prepared, tmp_path / "store"))


def searches(store: Path) -> list[str]:
    """Return the names of the searches that can be shown."""
    return [name for name in records.search_names(store) if queries.search_summary(store, name)["trials"]]


def studies(store: Path) -> dict[str, int]:
    """Return the number of trials of each of Optuna's studies."""
    storage = optuna.storages.RDBStorage(sqlite_uri(store / "optuna.db"))
    found = {one.study_name: one.n_trials for one in optuna.get_all_study_summaries(storage)}
    storage.engine.dispose()
    return found


def run_ids(store: Path, name: str) -> dict[str, str]:
    """Return the run id of each run of a search in MLflow, by the run's name; those of no experiment are none."""
    client = Search(store, name, begun=True).client()
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return {}
    return {run.info.run_name: run.info.run_id for run in client.search_runs([experiment.experiment_id])}


def run(*arguments: str | Path) -> int:
    return cli.run([str(argument) for argument in arguments])


def test_a_renamed_search_keeps_its_runs_and_its_study(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = run_ids(store, "first")
    assert before.keys() == {"first", "first-0000", "first-0001"}
    for old, new in (("first", "second"), ("second", "third"), ("third", "first"), ("first", "last")):
        assert run("rename", old, new, "--store", store) == 0
        assert searches(store) == sorted(["other", new])
        assert studies(store) == {"other": 2, new: 2}
        assert run_ids(store, new) == {name.replace("first", new): number for name, number in before.items()}
        assert Search(store, new, begun=True).client().get_experiment_by_name(old) is None
    assert {line.split(" in /")[0] for line in capfd.readouterr().err.splitlines()} <= {"mlflow.db kept its artifacts"}
    assert synchronize(store, "last", warn=print, others=mirror.projections) == ([], [])
    assert set(run_ids(store, "last").values()) == set(before.values())


def test_a_renamed_search_is_resumed_to_the_same_end(tmp_path: Path, document: Document) -> None:
    store = Path(shutil.copytree(STORED / "store", tmp_path / "store"))
    assert run("rename", "interrupted", "finished", "--store", store) == 2
    assert run("rename", "interrupted", "renamed", "--store", store) == 0
    resumed, expected = document(store, "resume", "renamed"), EXPECTED["resume"]
    renamed = json.loads(json.dumps(expected).replace("interrupted", "renamed"))
    assert_same(resumed, renamed)
    rows = document(store, "episodes", "renamed", "--limit", "1000")["rows"]
    assert {row["search"] for row in rows} == {"renamed"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["rename", "frist", "x"], "did you mean 'first'"),
        (["rename", "first", "other"], "a search named 'other' exists already"),
        (["rename", "first", "first"], "has that name already"),
        (["rename", "first", "../x"], "cannot be named"),
        (["rm", "first", "frist"], "did you mean 'first'"),
        (["rm", "../first"], "cannot be named"),
        (["note", "frist", "x"], "did you mean 'first'"),
        (["note", "first", " "], "1 to 1000 characters, got 0"),
        (["note", "first", "x", "--trial", "2"], "has no trial 2; it has 0, 1"),
    ],
)
def test_wrong_names_are_refused_and_change_nothing(
    store: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert run(*arguments, "--store", store) == 2
    assert told in capfd.readouterr().err
    assert searches(store) == ["first", "other"]
    assert queries.search_summary(store, "first")["notes"] == []


def test_a_search_that_runs_or_is_being_sent_is_refused(store: Path) -> None:
    folder = store / "searches" / "first"
    for held, told in (
        (writer_lock(folder), "is being run by"),
        (filelock.FileLock(folder / "mlflow.lock"), "is sending search"),
    ):
        with held:
            with pytest.raises(SearchError, match=told):
                housekeeping.remove("first", store=store)
            with pytest.raises(SearchError, match=told):
                housekeeping.rename("first", "second", store=store)
    with writer_lock(folder), pytest.raises(SearchError, match="is being run by"):
        housekeeping.note("first", "a remark", store=store)
    assert searches(store) == ["first", "other"] and studies(store) == {"first": 2, "other": 2}


def test_a_removed_search_is_gone_everywhere(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("rm", "first", "--dry-run", "--store", store) == 0
    assert "would remove first: 2 trials" in capfd.readouterr().out
    assert searches(store) == ["first", "other"]
    others = run_ids(store, "other")
    assert run("rm", "first", "first", "--store", store, "--json") == 0
    (removed,) = json.loads(capfd.readouterr().out)["removed"]
    assert (removed["name"], removed["trials"], removed["runs"]) == ("first", 2, 3)
    assert sorted(path.name for path in (store / "searches").iterdir()) == ["other"]
    assert studies(store) == {"other": 2}
    assert run_ids(store, "other") == others
    again = Search(store, "first")  # a new search of that name begins with nothing
    again.tell(STARTED, *story({0: 0.5}), ENDED)
    assert again.drain() == []
    assert [*again.runs()[1]] == ["0"]
    again.journal.close()


def test_what_mlflow_does_not_take_leaves_the_search(tmp_path: Path) -> None:
    made = Search(tmp_path, "first")
    created = made.journal.events()[0].payload
    created["experiment"]["tracking"] = {"uri": "http://127.0.0.1:9"}
    made.tell((records.SEARCH_CREATED, None, created))
    made.tell(STARTED, *story({0: 0.7}), ENDED)
    made.journal.close()
    with pytest.raises(StoreError, match="--keep-runs"):
        housekeeping.remove("first", store=tmp_path)
    assert searches(tmp_path) == ["first"]
    assert housekeeping.remove("first", store=tmp_path, keep_runs=True).runs is None
    assert records.search_names(tmp_path) == []


def test_a_damaged_or_empty_search_can_be_removed(store: Path) -> None:
    for name in ("journal.db", "journal.log", "journal.backup-1.db"):
        (store / "searches" / "first" / name).write_bytes(b"damaged")
    (store / "searches" / "empty").mkdir()
    assert run("rm", "first", "empty", "--store", store) == 0
    assert searches(store) == ["other"]


def test_notes_are_shown_and_in_mlflow(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    updated = queries.search_record(store, "first").elapsed_s
    assert run("note", "first", "a rate too high", "--store", store) == 0
    assert run("note", "first", "but it ends well", "--store", store) == 0
    assert run("note", "first", "the one to export", "--trial", "1", "--store", store) == 0
    capfd.readouterr()
    assert run("show", "first", "--store", store) == 0
    shown = capfd.readouterr().out
    assert "note: a rate too high\nnote: but it ends well\n" in shown
    assert "trial 1: the one to export" in shown
    summary = queries.search_summary(store, "first")
    assert summary["notes"] == ["a rate too high", "but it ends well"]
    assert [trial["notes"] for trial in summary["trials"]] == [[], ["the one to export"]]
    parent, trials = Search(store, "first", begun=True).runs()
    assert parent.data.tags["metaloom.remark"] == "a rate too high\nbut it ends well"
    assert trials["1"].data.tags["metaloom.remark"] == "the one to export"
    assert queries.search_record(store, "first").elapsed_s == updated  # no time of the search


STRUCK = """
import os, signal, sys
from metaloom.orchestrator import housekeeping
store, last, call = sys.argv[1], int(sys.argv[2]), sys.argv[3]
STEPS = {"os.rename", "os.remove", "os.rmdir", "sqlite3.connect", "shutil.rmtree"}
seen = 0
def strike(event, arguments):
    global seen
    if event in STEPS and any(store in str(one) for one in arguments):
        seen += 1
        if seen == last:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(strike)
if call == "rm":
    housekeeping.remove("first", store=store)
else:
    housekeeping.rename("first", "second", store=store)
print(seen)
"""


def struck(store: Path, step: int, call: str) -> tuple[int, int]:
    """Run a command in a process that is killed at one of its steps; return its exit code and the steps it took."""
    process = Process("-c", STRUCK, str(store), str(step), call)
    out, errors = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGKILL), errors
    return int(process.returncode or 0), int(out or 0)


@pytest.mark.parametrize(("call", "after"), [("rm", ["other"]), ("rename", ["other", "second"])])
def test_a_kill_at_any_step_leaves_the_old_or_the_new(
    prepared: Path, tmp_path: Path, call: str, after: list[str]
) -> None:
    code, steps = struck(Path(shutil.copytree(prepared, tmp_path / "whole")), 0, call)
    assert code == 0 and steps > 6
    found: set[tuple[str, ...]] = set()
    for step in (1, steps // 2, steps):
        store = Path(shutil.copytree(prepared, tmp_path / f"killed-{step}"))
        assert struck(store, step, call)[0] == -signal.SIGKILL
        found.add(tuple(searches(store)))
        again: Any = ["rm", "first"] if call == "rm" else ["rename", "first", "second"]
        was_done = call == "rm" and not any((store / "searches").glob("*first*"))
        assert run(*again, "--store", store) == (2 if was_done else 0)
        assert searches(store) == after
        assert studies(store) == dict.fromkeys(after, 2)
        assert len(run_ids(store, "other")) == 3
        assert not [path for path in (store / "searches").iterdir() if path.name.startswith(".")]
        if call == "rename":
            assert run_ids(store, "second").keys() == {"second", "second-0000", "second-0001"}
    assert found == {("first", "other"), tuple(after)}


def test_sync_sends_to_both_databases_from_a_new_process(store: Path) -> None:
    with Journal(store / "searches" / "first") as journal:  # so that both have something to be sent
        journal.append_between(records.NOTED, {"text": "x", "time": 0.0, "notes": ["x"]})
    command = [sys.executable, "-m", "metaloom", "sync", "first", "--store", str(store)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "first: everything is sent\n"), ended.stderr
