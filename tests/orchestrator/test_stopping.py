"""``metaloom stop``: real processes that run a search are told to end, once, and a resume comes to the same result."""

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from metaloom.orchestrator import journal, stopping
from metaloom.orchestrator.command_line import cli
from metaloom.orchestrator.director import Director
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.journal import Journal, writer_lock
from metaloom.orchestrator.stopping import is_stopping, stop
from metaloom.testing import toy
from metaloom.workers.records import names as records
from metaloom.workers.records.journal_sources import read_journal
from metaloom.workers.records.search import SearchRecord
from tests.support.processes import Process

DRIVER = str(Path(__file__).resolve().parents[1] / "support" / "driver.py")
LIMIT_S = 60.0
THREAD = """
import sys, threading
from pathlib import Path
from metaloom.orchestrator.journal import writer_lock
from metaloom.testing import toy
def hold():
    with writer_lock(Path(sys.argv[1])):
        director = toy.direct(Path(sys.argv[1]))
        director.start()
        print("up", flush=True)
        sys.stdin.readline()
threading.Thread(target=hold).start()
"""


def driving(store: Path, name: str, *, seconds: float) -> Process:
    options = {"outer": {"seconds": seconds}, "settings": {"trials": 4}}
    return Process(DRIVER, str(store / "searches" / name), "inline", json.dumps(options))


def record(store: Path, name: str) -> SearchRecord:
    return SearchRecord.replay(read_journal(store / "searches" / name).events)  # it may have no event yet


def wait_for_reports(store: Path, name: str, process: Process) -> None:
    deadline = time.monotonic() + LIMIT_S
    path = store / "searches" / name / records.JOURNAL_FILE
    while not path.exists() or not any(trial.reports for trial in record(store, name).trials.values()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)


def outcome(store: Path, name: str) -> Any:
    with Journal(store / "searches" / name, read_only=True) as read:
        return toy.outcome(Director(read, toy.ToySpace()))


def test_a_search_told_twice_at_once_completes_its_records_and_is_resumed_to_the_same_end(tmp_path: Path) -> None:
    assert driving(tmp_path, "whole", seconds=0.0).wait(LIMIT_S) == 0
    process = driving(tmp_path, "cut", seconds=0.05)
    wait_for_reports(tmp_path, "cut", process)
    process.send_signal(signal.SIGSTOP)  # so that it cannot end between the two
    told: list[stopping.Stopping] = []
    threads = [threading.Thread(target=lambda: told.append(stop("cut", store=tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((one.told_before, one.ended, one.pid) for one in told) == [
        (False, False, process.pid),
        (True, False, process.pid),
    ]
    process.send_signal(signal.SIGCONT)
    assert process.wait(LIMIT_S) == 128 + signal.SIGINT
    state = record(tmp_path, "cut")
    assert state.state == records.INTERRUPTED and not state.in_state(records.RUNNING)
    assert is_stopping(tmp_path / "searches" / "cut", state.session)
    with pytest.raises(SearchError, match=r"no process runs search 'cut' \(interrupted\)"):
        stop("cut", store=tmp_path)
    process = driving(tmp_path, "cut", seconds=0.05)
    while record(tmp_path, "cut").state != records.RUNNING:
        time.sleep(0.05)
    assert not is_stopping(tmp_path / "searches" / "cut", record(tmp_path, "cut").session)
    assert not stop("cut", store=tmp_path, wait_s=LIMIT_S).told_before and process.wait(LIMIT_S) == 130
    assert driving(tmp_path, "cut", seconds=0.0).wait(LIMIT_S) == 0
    assert outcome(tmp_path, "cut") == outcome(tmp_path, "whole")


def test_the_command_waits_and_says_how_to_go_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    process = driving(tmp_path, "cut", seconds=0.05)
    wait_for_reports(tmp_path, "cut", process)
    assert cli.run(["stop", "cut", "--store", str(tmp_path)]) == 0
    said = capfd.readouterr().out
    assert f"process {process.pid}, which runs cut, was told to stop, and has ended" in said
    assert f"metaloom resume cut --store {tmp_path}" in said and process.wait(LIMIT_S) == 130
    assert cli.run(["stop", "cut", "--store", str(tmp_path), "--json"]) == 2
    assert "nothing to stop" in json.loads(capfd.readouterr().out)["error"]


def test_a_killed_process_and_one_with_its_number_get_no_signal(tmp_path: Path) -> None:
    process = driving(tmp_path, "s", seconds=0.05)
    wait_for_reports(tmp_path, "s", process)
    owner = tmp_path / "searches" / "s" / journal.OWNER_FILE
    noted = json.loads(owner.read_text())
    process.kill()
    process.wait(LIMIT_S)
    with pytest.raises(SearchError, match="the one that did is gone; go on with it by: metaloom resume s"):
        stop("s", store=tmp_path)
    owner.write_text(json.dumps({**noted, "pid": os.getpid(), "time": 0.0}))  # a number that was used again
    with pytest.raises(SearchError, match="is gone"):
        stop("s", store=tmp_path)
    owner.write_text(json.dumps({**noted, "pid": os.getpid()}))  # holds the lock, and runs no trials
    with pytest.raises(SearchError, match=f"process {os.getpid()} is preparing search 's', or changes its records"):
        stop("s", store=tmp_path)


def test_a_search_on_another_machine_is_not_stopped_from_here(tmp_path: Path) -> None:
    folder = tmp_path / "searches" / "s"
    toy.direct(folder).journal.close()  # type: ignore[attr-defined]
    with writer_lock(folder):
        noted = json.loads((folder / journal.OWNER_FILE).read_text())
        assert noted["host"] == socket.gethostname()
        (folder / journal.OWNER_FILE).write_text(json.dumps({**noted, "host": "elsewhere"}))
        with pytest.raises(SearchError, match="no signal reaches another machine; on elsewhere: metaloom stop s"):
            stop("s", store=tmp_path)


def test_a_search_in_a_thread_of_a_program_gets_no_signal(tmp_path: Path) -> None:
    folder = tmp_path / "searches" / "s"
    folder.mkdir(parents=True)
    process = Process("-c", THREAD, str(folder))
    assert process.stdout.readline() == "up\n"
    with pytest.raises(SearchError, match=r"a thread of process .* which a signal does not reach"):
        stop("s", store=tmp_path)
    process.communicate("\n", LIMIT_S)
    assert process.returncode == 0
