"""A closed terminal ends a command as SIGTERM does, and nohup protects from it: real terminals, real signals."""

import os
import pty
import signal
import threading
import time
from pathlib import Path

import pytest

from metaloom.orchestrator.errors import StoreError
from metaloom.orchestrator.journal import Journal
from metaloom.orchestrator.tracking import client
from metaloom.workers.records import names as records
from metaloom.workers.records.search import SearchRecord
from tests.support import databases, processes
from tests.support.processes import Process

LIMIT_S = 60.0
SEARCH = """
import os, signal, sys
from metaloom.orchestrator.command_line import cli
if sys.argv[1] == "terminal":
    os.setsid()  # a session without a terminal takes the first one that it opens
    terminal = os.open(sys.argv[2], os.O_RDWR)
    for file in range(3):
        os.dup2(terminal, file)
elif sys.argv[1] == "nohup":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
cli.main(sys.argv[3:])
"""
STEPS = ["--set", "outer.validate_every=5", "--set", "outer.validation_episodes=4", "--set", "outer.test_episodes=4"]


def searching(store: Path, how: str, terminal: str = "-", *, steps: int) -> Process:
    """Begin a search of one trial in this way, in a store with MLflow's database."""
    databases.copy_mlflow_database(store / client.MLFLOW_DATABASE)
    options = ["--executor", "inline", "--trials", "1", "--set", f"outer.steps={steps}", *STEPS, "--store", str(store)]
    return Process("-c", SEARCH, how, terminal, "search", "quick", *options)


def wait_for_a_report(store: Path, process: Process) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not (state := state_of(store)) or not any(trial.reports for trial in state.trials.values()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)


def state_of(store: Path) -> SearchRecord | None:
    """Return the search's state, None while its journal is being made."""
    if not (store / "searches" / "quick" / records.JOURNAL_FILE).exists():
        return None
    journal = Journal(store / "searches" / "quick", read_only=True)
    try:
        return SearchRecord.replay(journal.events())
    except StoreError:
        return None
    finally:
        journal.close()


def test_a_search_whose_terminal_is_closed_ends_with_complete_records(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    master, slave = pty.openpty()
    process = searching(tmp_path, "terminal", os.ttyname(slave), steps=2000)
    reader = threading.Thread(target=_drain, args=(master, stop := threading.Event()))
    reader.start()
    wait_for_a_report(tmp_path, process)
    os.close(slave)
    stop.set()
    reader.join()
    os.close(master)  # the kernel sends SIGHUP, and each write to the terminal fails from now on
    assert process.wait(LIMIT_S) == 129
    state = state_of(tmp_path)
    assert state is not None and state.state == "interrupted" and not state.in_state(records.RUNNING)
    mlflow = MlflowClient(tracking_uri=client.tracking_uri(tmp_path, None))
    runs = mlflow.search_runs([one.experiment_id for one in mlflow.search_experiments()])
    assert sorted(one.info.status for one in runs) == ["KILLED", "KILLED"]


def _drain(terminal: int, stop: threading.Event) -> None:
    """Read what a terminal shows, so that it never is full."""
    os.set_blocking(terminal, False)
    while not stop.wait(0.01):
        try:
            while os.read(terminal, 65536):
                pass
        except BlockingIOError:
            continue


def test_under_nohup_a_search_outlives_its_terminal(tmp_path: Path) -> None:
    process = searching(tmp_path, "nohup", steps=100)
    wait_for_a_report(tmp_path, process)
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, errors
    state = state_of(tmp_path)
    assert state is not None and state.state == "finished"


@pytest.mark.parametrize(
    ("names", "ending"),
    [
        ("SIGHUP SIGHUP SIGTERM", "first SIGHUP"),  # a login session that ends sends all three
        ("SIGTERM SIGHUP", "first SIGTERM"),  # systemd with SendSIGHUP=yes
        ("SIGHUP SIGTERM SIGINT", "ended at once"),
        ("SIGTERM SIGTERM", "ended at once"),
    ],
)
def test_only_a_second_deliberate_signal_ends_a_search_at_once(names: str, ending: str) -> None:
    code = """
import os, signal, sys
from metaloom.orchestrator.interruption import Interruption
with Interruption().installed() as interruption:
    for name in sys.argv[1:]:
        os.kill(os.getpid(), signal.Signals[name])
    print("first", signal.Signals(interruption.signal_number).name)
"""
    done = processes.run("-c", code, *names.split())
    assert ending in done.stdout + done.stderr
    assert done.returncode == (128 + (15 if names.startswith("SIGTERM") else 1) if ending == "ended at once" else 0)
