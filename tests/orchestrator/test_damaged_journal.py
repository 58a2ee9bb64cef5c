"""A damaged journal: what its copies and the trials' own records prove comes back; the rest is named."""

import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaloom.orchestrator.command_line import cli
from metaloom.orchestrator.copies import set_aside
from metaloom.orchestrator.director import Director
from metaloom.orchestrator.errors import SearchError, StoreError
from metaloom.orchestrator.executors.hosting import TrialHost
from metaloom.orchestrator.executors.inline import InlineExecutor
from metaloom.orchestrator.interruption import Interruption
from metaloom.orchestrator.journal import Journal, Mark
from metaloom.orchestrator.messages import Assignment
from metaloom.orchestrator.repair import clear, recover, repair
from metaloom.orchestrator.store import Store
from metaloom.testing import toy
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Values
from metaloom.workers.records.journal_sources import is_empty, read_journal
from metaloom.workers.records.trial import TrialConfig
from tests.support.journals import COPIES, flip, remove_copies
from tests.support.processes import Process

ASHA: dict[str, Any] = {
    "trials": 4,
    "sampler": {"kind": "tpe", "startup_trials": 2},
    "scheduler": {"kind": "asha", "grace_steps": 2},
}
PBT: dict[str, Any] = {"trials": 4, "scheduler": {"kind": "pbt", "interval_steps": 3}}
WAL = f"{records.JOURNAL_FILE}-wal"
SHM = f"{records.JOURNAL_FILE}-shm"
FILES = (records.JOURNAL_FILE, WAL, SHM)
quick = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Whole: TypeAlias = tuple[Path, Sequence[Values]]
Damage = Callable[[Path], None]


def searched(folder: Path, section: dict[str, Any]) -> Director:
    director = toy.direct(folder, **section)
    InlineExecutor(Interruption()).run(director, toy.open_toy)
    director.end()
    return director


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A search whose last events are in the write-ahead log, as after a kill -9, and its rows."""
    folder = tmp_path_factory.mktemp("whole") / "searches" / "toy"
    director = searched(folder, ASHA)
    director.journal.set_mark(records.MLFLOW_MARK, Mark(20, "{}"))
    killed = folder.with_name("killed")
    shutil.copytree(folder, killed)
    director.journal.close()
    assert (killed / WAL).stat().st_size > 4096
    return killed, read_journal(killed).rows


def fresh(whole: Whole, tmp_path: Path) -> Path:
    folder = tmp_path / "store" / "searches" / "toy"
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(whole[0], folder))


def assert_mended(folder: Path, rows: Sequence[Values]) -> None:
    """Require all events, and a journal that can be written and read again."""
    with Journal(folder) as journal:
        journal.append("an event of a newer version")
        assert journal.mark(records.MLFLOW_MARK) in (Mark(20, "{}"), Mark())  # sent again, under the same times
    found = read_journal(folder)
    assert found.problem == "" and found.rows[: len(rows)] == rows
    assert repair(folder).lines == []


@quick
@given(
    name=st.sampled_from([records.JOURNAL_FILE, WAL, SHM]), at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7)
)
def test_a_flipped_bit_loses_nothing(whole: Whole, tmp_path: Path, name: str, at: float, bit: int) -> None:
    folder = fresh(whole, tmp_path)
    flip(folder / name, int(at * (folder / name).stat().st_size), bit)
    assert read_journal(folder).rows == whole[1]  # readers see it all, and write nothing
    damaged = (folder / name).read_bytes()
    done = recover(folder)
    assert done.lost == () and done.events == len(whole[1])
    aside = [path for path in folder.iterdir() if ".damaged-" in path.name]
    assert bool(aside) == bool(done.problem) and all(path.stat().st_mode & 0o077 == 0 for path in aside)
    if done.problem and name == records.JOURNAL_FILE:
        assert damaged in [path.read_bytes() for path in aside]
    assert_mended(folder, whole[1])


@quick
@given(name=st.sampled_from([records.JOURNAL_FILE, WAL]), at=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_loses_nothing(whole: Whole, tmp_path: Path, name: str, at: float) -> None:
    folder = fresh(whole, tmp_path)
    os.truncate(folder / name, int(at * (folder / name).stat().st_size))
    assert read_journal(folder).rows == whole[1]
    assert recover(folder).lost == ()
    assert_mended(folder, whole[1])


@quick
@given(st.data())
def test_damage_to_the_journal_and_its_log_leaves_the_longest_chain_and_names_the_rest(
    whole: Whole, tmp_path: Path, data: st.DataObject
) -> None:
    folder, rows = fresh(whole, tmp_path), whole[1]
    for name in records.JOURNAL_BACKUPS:
        (folder / name).unlink(missing_ok=True)
    broken = data.draw(st.integers(1, len(rows)))
    with closing(sqlite3.connect(folder / records.JOURNAL_FILE)) as database, database:
        database.execute("UPDATE events SET payload = payload || ' ' WHERE id = ?", (broken,))
    lines = (folder / records.JOURNAL_LOG).read_bytes().split(b"\n")
    other = data.draw(st.integers(broken, len(rows)))
    lines[broken - 1] = lines[broken - 1].replace(b"{", b"[", 1)
    lines[other - 1] = lines[other - 1].replace(b"{", b"[", 1)
    (folder / records.JOURNAL_LOG).write_bytes(b"\n".join(lines))
    if broken == 1:
        with pytest.raises(StoreError, match="no copy of it holds an event; what its trials have learned is in"):
            recover(folder)
        return
    done = repair(folder)
    kept = read_journal(folder).rows[: done.events]
    assert kept == rows[: len(kept)] and len(kept) < broken
    assert len(rows) - len(kept) == len(done.lost) and f"event {broken}, " in " ".join(done.lost)
    assert not kept or not kept[-1][5].endswith("+")  # whole transactions
    assert {records.JOURNAL_FILE, records.JOURNAL_LOG} <= {name.partition(".damaged")[0] for name in done.set_aside}


REMOVED: dict[str, Damage] = {
    "emptied": lambda folder: (folder / records.JOURNAL_FILE).write_bytes(b"") and None,
    "deleted": lambda folder: (folder / records.JOURNAL_FILE).unlink(),
    "deleted with its log": lambda folder: (
        [(folder / name).unlink() for name in (records.JOURNAL_FILE, WAL, SHM, records.JOURNAL_LOG)] and None
    ),
}


@pytest.mark.parametrize("how", REMOVED)
def test_a_missing_journal_is_a_damaged_one(whole: Whole, tmp_path: Path, how: str) -> None:
    folder = fresh(whole, tmp_path)
    REMOVED[how](folder)
    with pytest.raises(SearchError, match="exists already"):
        Store(tmp_path / "store").check_free("toy")
    assert recover(folder).events > 0
    found = read_journal(folder).rows
    assert found[: len(whole[1])] == whole[1] or how == "deleted with its log"  # a backup is older


@pytest.mark.parametrize("section", [ASHA, PBT], ids=["asha", "pbt"])
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_search_goes_on_from_any_prefix_to_the_same_end_by_its_trials_own_records(
    tmp_path_factory: pytest.TempPathFactory, section: dict[str, Any], data: st.DataObject
) -> None:
    """No copy is left; no step is computed again, and every report and decision comes back."""
    store = tmp_path_factory.mktemp("store") / "searches"
    director = searched(store / "toy", section)
    director.journal.close()
    expected, computed = toy.outcome(director), steps(store / "toy")
    remove_copies(store / "toy")
    cut = data.draw(st.integers(2, len(read_journal(store / "toy").rows)))
    with closing(sqlite3.connect(store / "toy" / records.JOURNAL_FILE)) as database, database:
        database.execute("UPDATE events SET payload = payload || ' ' WHERE id = ?", (cut,))
    done = repair(store / "toy")
    assert done.lost[0].startswith("event ")
    with Journal(store / "toy") as journal:
        again = Director(journal, toy.ToySpace())
        again.start()
        InlineExecutor(Interruption()).run(again, toy.open_toy)
        again.end()
        assert toy.outcome(again) == expected
        assert again.state.warnings == done.lines
    assert steps(store / "toy") == computed


def steps(folder: Path) -> list[int]:
    """Count the steps that each trial has really computed."""
    return [sum(line["what"] == "step" for line in toy.truth(folder, trial)) for trial in range(4)]


def test_records_of_other_knobs_are_kept_aside(tmp_path: Path) -> None:
    """A trial that is proposed again with other knobs does not go on from the checkpoint of the first."""
    outer = {"steps": 3, "every": 1}
    before, after = (
        Assignment(TrialConfig("toy", 0, 0, {}, {"rate": rate, "width": 8}, outer=outer), tmp_path / "trials" / "0000")
        for rate in (0.1, 0.2)
    )
    host = TrialHost(toy.open_toy)
    host.begin(before)
    first = [host.step().report for _ in range(2)]
    host.begin(after)
    report = host.step().report
    host.close()
    assert report is not None and report.step == 1 and "the records of other knobs" in report.warnings[0]
    assert first[1] is not None and (tmp_path / "trials" / "aside-0000-1" / records.REPORTS_FILE).is_file()
    assert list(records.trial_directories(tmp_path)) == [0]


def test_a_report_that_damage_has_taken_out_of_a_trials_own_records_is_named(tmp_path: Path) -> None:
    config = TrialConfig("toy", 0, 0, {}, {"rate": 0.1, "width": 8}, outer={"steps": 6, "every": 1})
    host = TrialHost(toy.open_toy)
    host.begin(Assignment(config, tmp_path / "0000"))
    made = [host.step().report for _ in range(4)]
    path = tmp_path / "0000" / records.REPORTS_FILE
    flip(path, path.read_bytes().index(b'"step":2'))
    host.begin(Assignment(config, tmp_path / "0000"))
    found = [host.step().report for _ in range(3)]
    host.close()
    assert [report.step for report in found if report] == [1, 3, 4] and found[0] == made[0]
    assert found[1] is not None and found[1].warnings == (
        "1 reports before step 3 are lost: their records are damaged",
    )
    assert found[2] == made[3]


def test_a_damaged_mark_sends_everything_again(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append("a")
        journal.set_mark("mlflow", Mark(1, '{"steps": {"0": 5}}'))
        journal._connection.execute("UPDATE marks SET event = 9")
        assert journal.mark("mlflow") == Mark()
        journal.set_mark("mlflow", Mark(1))
        assert journal.mark("mlflow") == Mark(1)


BACKING_UP = """
import sys
from pathlib import Path
from metaloom.orchestrator.copies import write_backup
from metaloom.orchestrator.journal import Journal
journal = Journal(Path(sys.argv[1]))
print("begun", flush=True)
while True:
    journal.append("trial_reported", {"text": "x" * 1000})
    write_backup(journal.folder, journal._connection)
"""


def test_a_kill_while_a_backup_is_written_leaves_one_whole(tmp_path: Path) -> None:
    for _ in range(2):
        process = Process("-c", BACKING_UP, str(tmp_path))
        assert process.stdout.readline() == "begun\n"
        process.stdout.close()
        while not (tmp_path / records.JOURNAL_BACKUPS[1]).exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        rows = read_journal(tmp_path).rows
        for path in [tmp_path / name for name in (records.JOURNAL_FILE, WAL, SHM, records.JOURNAL_LOG)]:
            path.unlink(missing_ok=True)
        backed_up = read_journal(tmp_path).rows
        assert rows[: len(backed_up)] == backed_up and len(rows) - len(backed_up) <= 2
        assert recover(tmp_path).events == len(backed_up)


def test_a_repair_that_was_killed_is_done_again(whole: Whole, tmp_path: Path) -> None:
    """Its rows are in a backup before the damaged files are set aside."""
    folder = fresh(whole, tmp_path)
    flip(folder / records.JOURNAL_FILE, 30)
    set_aside([folder / name for name in (records.JOURNAL_FILE, WAL)])  # and then the kill
    assert recover(folder).lost == ()
    assert_mended(folder, whole[1])


@pytest.mark.parametrize("sizes", [range(0, 4096, 512), range(4096, 40_000, 1024)], ids=["first page", "later pages"])
def test_a_search_that_was_stopped_while_its_journal_was_made_is_begun_by_the_same_command(
    tmp_path: Path, sizes: range
) -> None:
    """Every file is cut as a kill or a full disk leaves it; there is no event before the first transaction is whole."""
    made = tmp_path / "made" / "searches" / "toy"
    journal = toy.create(made)
    unclosed = shutil.copytree(made, tmp_path / "unclosed")
    journal.close()
    store = Store(tmp_path / "store").create()
    for size in sizes:
        for name in (records.JOURNAL_FILE, WAL):
            if size >= (unclosed / name).stat().st_size:
                continue
            folder = store.new_folder("toy")
            shutil.copytree(unclosed, folder, dirs_exist_ok=True)
            remove_copies(folder)
            os.truncate(folder / name, size)
            if name == records.JOURNAL_FILE:
                (folder / WAL).unlink()
            assert is_empty(folder), (name, size)
            with pytest.raises(SearchError, match=r"search 'toy' has no records: .* begin it by the same command"):
                store.existing_folder("toy")
            assert store.free_name("toy") == "toy" and store.new_folder("toy") == folder
            clear(folder)
            toy.create(folder).close()
            assert len(read_journal(folder).rows) == 1
            shutil.rmtree(folder)


def test_a_journal_of_an_earlier_version_gets_its_checksums_when_it_is_written(tmp_path: Path) -> None:
    stored = Path(__file__).parents[1] / "fixtures" / "stored_0_1" / "store" / "searches" / "interrupted"
    folder = Path(shutil.copytree(stored, tmp_path / "interrupted"))
    with closing(sqlite3.connect(folder / records.JOURNAL_FILE)) as database, database:
        database.execute("INSERT OR REPLACE INTO marks VALUES ('mlflow', 3, '{}')")
    before = read_journal(folder)
    assert before.problem == "" and recover(folder).lines == []
    with Journal(folder, read_only=True) as journal:
        events, last = journal.events(), journal.events(after=len(before.rows) - 1)
    with Journal(folder) as journal:
        assert journal.mark(records.MLFLOW_MARK) == Mark(3, "{}")
        journal.append("a")
        assert journal.events()[:-1] == events == before.events and last == events[-1:]
    assert read_journal(folder).rows[:-1] == before.rows
    flip(folder / records.JOURNAL_FILE, (folder / records.JOURNAL_FILE).read_bytes().index(b"learner"))
    assert "does not have the checksum" in recover(folder).problem


def contents(folder: Path) -> dict[str, bytes]:
    """Read the files of a search, without the index of the write-ahead log, which SQLite makes again."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != SHM}


def test_repair_says_what_it_does_and_dry_run_changes_nothing(
    whole: Whole, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = fresh(whole, tmp_path)
    command = ["repair", "toy", "--store", str(tmp_path / "store")]

    def run(*more: str) -> tuple[int, Any]:
        capfd.readouterr()
        code = cli.run([*command, "--json", *more])
        return code, json.loads(capfd.readouterr().out)

    assert run()[1]["problem"] == ""
    os.truncate(folder / WAL, 20_000)
    before = contents(folder)
    code, planned = run("--dry-run")
    assert code == 0 and planned["recovered"] > 0 and planned["set_aside"] == []
    assert contents(folder) == before
    assert cli.run(["show", "toy", "--store", str(tmp_path / "store")]) == 0
    assert "mend it with: metaloom repair toy" in capfd.readouterr().out
    code, done = run()
    assert code == 0 and {**done, "set_aside": [], "dry_run": True} == planned and done["set_aside"]
    remove_copies(folder)
    with closing(sqlite3.connect(folder / records.JOURNAL_FILE)) as database, database:
        database.execute("UPDATE events SET payload = payload || ' ' WHERE id = 20")
    code, done = run()
    assert code == 1 and "event 20, " in " ".join(done["lost"])
    for name in (*COPIES, records.JOURNAL_FILE):
        (folder / name).unlink(missing_ok=True)
    code, done = run()
    assert code == 3 and "begin the search again with" in done["error"]
