"""kill -9 and signals on real driver processes; the trials' own files are the ground truth."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from metaloom.orchestrator.director import Director
from metaloom.orchestrator.executors.inline import InlineExecutor
from metaloom.orchestrator.executors.ray_cluster import environment as ray_environment
from metaloom.orchestrator.interruption import Interruption
from metaloom.orchestrator.journal import Journal
from metaloom.testing import toy
from metaloom.workers.records import names as records
from metaloom.workers.records.search import SearchRecord
from tests.support.processes import PRELOADED, Process

SUPPORT = Path(__file__).parents[1] / "support"
SECTION: dict[str, Any] = {
    "trials": 5,
    "sampler": {"kind": "tpe", "startup_trials": 2},
    "scheduler": {"kind": "asha", "grace_steps": 2},
}
LIMIT_S = 90.0
GIB = 2**30
PLANTED = ("MY_SECRET", "METALOOM_TOKEN", "AWS_SECRET_ACCESS_KEY")  # Tune would send its workers the last one


def start(
    folder: Path,
    executor: str,
    outer: dict[str, Any],
    *,
    section: dict[str, Any] = SECTION,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Process:
    options = json.dumps({"outer": outer, "settings": section})
    everything = {**os.environ, **(environment or {})}
    driver = [str(SUPPORT / "driver.py"), str(folder), executor, options]
    return Process(*driver, folder=cwd, environment=everything, new_session=True)


def wait_for_steps(folder: Path, count: int, driver: Process) -> None:
    """Wait until the trials have computed ``count`` steps in all."""
    deadline = time.monotonic() + LIMIT_S
    while (
        sum(line["what"] == "step" for trial in range(SECTION["trials"]) for line in toy.truth(folder, trial)) < count
    ):
        assert time.monotonic() < deadline and driver.poll() is None, driver.communicate()
        time.sleep(0.01)


def finish(folder: Path, executor: str, outer: dict[str, Any]) -> None:
    driver = start(folder, executor, outer)
    _, errors = driver.communicate(timeout=LIMIT_S)
    assert driver.returncode == 0, errors


def state_of(folder: Path) -> SearchRecord:
    journal = Journal(folder, read_only=True)
    try:
        return SearchRecord.replay(journal.events())
    finally:
        journal.close()


def uninterrupted(folder: Path, outer: dict[str, Any]) -> SearchRecord:
    director = toy.direct(folder, toy.ToySpace(outer), **SECTION)
    InlineExecutor(Interruption()).run(director, toy.open_toy)
    director.end()
    return director.state


def summed_up(state: SearchRecord) -> Any:
    return {
        number: (trial.state, trial.knobs, trial.values, [(one.step, one.metrics, one.scores) for one in trial.reports])
        for number, trial in state.trials.items()
    }


def repeated_steps(folder: Path) -> int:
    """Count the steps that were computed more than once."""
    repeated = 0
    for trial in range(SECTION["trials"]):
        steps = [line["step"] for line in toy.truth(folder, trial) if line["what"] == "step"]
        repeated += len(steps) - len(set(steps))
    return repeated


def assert_nothing_is_left_of(pids: list[int]) -> None:
    deadline = time.monotonic() + 10
    while alive := [pid for pid in pids if psutil.pid_exists(pid) and not _is_zombie(pid)]:
        assert time.monotonic() < deadline, [psutil.Process(pid).cmdline()[:3] for pid in alive]
        time.sleep(0.1)


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("seed", range(3))
def test_a_driver_killed_again_and_again_loses_and_repeats_nothing(tmp_path: Path, seed: int) -> None:
    outer = {"seconds": 0.02}
    draw = random.Random(seed)
    kills = 0
    for _ in range(3):
        driver = start(tmp_path / "s", "inline", outer)
        try:
            driver.wait(draw.uniform(0.5, 1.5))  # the imports take about half a second, the search a second
        except subprocess.TimeoutExpired:
            driver.kill()
            kills += 1
        driver.communicate()
    finish(tmp_path / "s", "inline", outer)
    assert summed_up(state_of(tmp_path / "s")) == summed_up(uninterrupted(tmp_path / "whole", outer))
    assert repeated_steps(tmp_path / "s") <= kills  # the step that each kill cut off


def test_a_ray_driver_killed_is_gone_on_with_by_ray(tmp_path: Path) -> None:
    outer = {"seconds": 0.1}
    driver = start(tmp_path / "s", "ray", outer, environment=dict.fromkeys(PLANTED, "planted"))
    wait_for_steps(tmp_path / "s", 8, driver)
    children = psutil.Process(driver.pid).children(recursive=True)
    inherited = [one.environ() for one in children]
    assert {"gcs_server", "raylet"} < {one.name() for one in children}
    assert not [one for one in inherited if "planted" in one.values()]
    (folder,) = {one[ray_environment.MARK] for one in inherited if ray_environment.MARK in one}
    assert len([one for one in inherited if ray_environment.MARK in one]) == len(children) - 1  # all but the guard
    driver.kill()
    driver.communicate()
    assert_nothing_is_left_of([child.pid for child in children])  # Ray's agents would live for a minute
    assert not Path(folder).exists()
    finish(tmp_path / "s", "ray", outer)
    assert summed_up(state_of(tmp_path / "s")) == summed_up(uninterrupted(tmp_path / "whole", {"seconds": 0}))
    assert repeated_steps(tmp_path / "s") <= 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_an_inline_search_at_once_with_complete_records(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    outer = {"seconds": 0.05}
    driver = start(tmp_path / "s", "inline", outer)
    wait_for_steps(tmp_path / "s", 5, driver)
    driver.send_signal(number)
    driver.communicate(timeout=5)
    assert driver.returncode == code
    state = state_of(tmp_path / "s")
    assert state.state == "interrupted"
    assert not state.in_state(records.RUNNING) and len(state.in_state(records.WAITING)) == 1
    finish(tmp_path / "s", "inline", outer)
    assert summed_up(state_of(tmp_path / "s")) == summed_up(uninterrupted(tmp_path / "whole", {"seconds": 0}))


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGTERM, 143, marks=pytest.mark.faults), (signal.SIGHUP, 129)]
)
def test_a_signal_to_all_ends_a_ray_search_in_a_folder_with_packages_of_our_names(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Ray's own handler would abort with -6; the working directory shadows our folders' bare names."""
    cwd = tmp_path / "user's folder"
    for package in ("workers", "learners", "orchestrator", "search_spaces", "dashboards"):
        (cwd / package).mkdir(parents=True)
        (cwd / package / "__init__.py").write_text("raise ImportError('the package of the user')\n")
    for module in ("metaloom", "torch", "pandas", "random", "filelock"):
        (cwd / f"{module}.py").write_text("raise ImportError('the module of the user')\n")
    outer = {"seconds": 0.1}
    driver = start(tmp_path / "s", "ray", outer, cwd=cwd, environment={PRELOADED: ray_environment.LOCAL[PRELOADED]})
    wait_for_steps(tmp_path / "s", 3, driver)
    children = [child.pid for child in psutil.Process(driver.pid).children(recursive=True)]
    os.killpg(driver.pid, number)  # as systemd, Slurm and a closed terminal do: to Ray's servers too
    _, errors = driver.communicate(timeout=20)
    assert driver.returncode == code, errors
    assert "Traceback" not in errors and "SIGTERM" not in errors
    state = state_of(tmp_path / "s")
    assert state.state == "interrupted" and len(state.in_state(records.WAITING)) == 1
    assert_nothing_is_left_of(children)


def test_a_worker_that_cannot_import_ends_the_search_with_its_error(tmp_path: Path) -> None:
    """Left to itself Tune starts such workers without end. The imports at a worker's start would hide the file."""
    (tmp_path / "pandas.py").write_text("raise ImportError('the pandas of the user')\n")
    driver = start(tmp_path / "s", "ray", {"seconds": 0}, cwd=tmp_path, environment={PRELOADED: ""})
    _, errors = driver.communicate(timeout=LIMIT_S)
    assert driver.returncode == 3, errors
    told = f"a Ray worker could not start: ImportError: the pandas of the user ({tmp_path / 'pandas.py'}, line 1)"
    assert errors.strip().endswith(told)


def test_sigterm_ends_a_ray_search_whose_server_hangs(tmp_path: Path) -> None:
    """A crowded machine's servers answer late; Ray would wait for them, for a minute and more."""
    driver = start(tmp_path / "s", "ray", {"seconds": 0.1})
    wait_for_steps(tmp_path / "s", 3, driver)
    children = psutil.Process(driver.pid).children(recursive=True)
    next(child for child in children if child.name() == "gcs_server").suspend()
    driver.terminate()
    _, errors = driver.communicate(timeout=20)
    assert driver.returncode == 143, errors
    assert state_of(tmp_path / "s").state == "interrupted"
    assert_nothing_is_left_of([child.pid for child in children])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_ray_starts_ends_the_search_and_what_has_started(tmp_path: Path, number: signal.Signals) -> None:
    driver = start(tmp_path / "s", "ray", {"seconds": 0})
    deadline = time.monotonic() + LIMIT_S
    while not any(child.name() == "gcs_server" for child in psutil.Process(driver.pid).children()):
        assert time.monotonic() < deadline and driver.poll() is None, driver.communicate()
        time.sleep(0.01)
    children = [child.pid for child in psutil.Process(driver.pid).children(recursive=True)]
    driver.send_signal(number)
    out, errors = driver.communicate(timeout=LIMIT_S)
    assert "up" not in out
    assert driver.returncode == 128 + number, errors
    assert "Traceback" not in errors
    assert state_of(tmp_path / "s").state == "interrupted"
    assert_nothing_is_left_of(children)


def test_ctrl_c_twice_ends_a_ray_search_at_once_and_it_can_be_resumed(tmp_path: Path) -> None:
    outer = {"seconds": 0.2}
    driver = start(tmp_path / "s", "ray", outer)
    wait_for_steps(tmp_path / "s", 3, driver)
    children = [child.pid for child in psutil.Process(driver.pid).children(recursive=True)]
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to the whole process group
    os.killpg(driver.pid, signal.SIGINT)
    driver.communicate(timeout=10)
    assert driver.returncode == 130
    assert_nothing_is_left_of(children)
    finish(tmp_path / "s", "inline", {"seconds": 0})
    assert len(state_of(tmp_path / "s").trials) == SECTION["trials"]


@pytest.mark.parametrize("server", [pytest.param("gcs_server", marks=pytest.mark.faults), "raylet"])
def test_a_server_of_ray_killed_ends_the_search_and_it_can_be_resumed(tmp_path: Path, server: str) -> None:
    """Left to itself Tune waits for the cluster's resources for ever."""
    driver = start(tmp_path / "s", "ray", {"seconds": 0.2})
    wait_for_steps(tmp_path / "s", 3, driver)
    children = psutil.Process(driver.pid).children(recursive=True)
    next(child for child in children if child.name() == server).kill()
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 3, errors
    assert "a server of Ray on this machine has died" in errors and "Traceback" not in errors
    assert_nothing_is_left_of([child.pid for child in children])
    finish(tmp_path / "s", "inline", {"seconds": 0})
    state = state_of(tmp_path / "s")
    assert state.state == "finished" and len(state.trials) == SECTION["trials"]


def test_a_worker_out_of_memory_fails_its_own_trial_and_no_other(tmp_path: Path) -> None:
    """Ray's memory monitor kills it, as it does on a full machine; left to itself Tune ends the search."""
    memory = psutil.virtual_memory()
    if memory.available < 6 * GIB:
        pytest.skip(f"needs 6 GiB of free memory, and there are {memory.available / GIB:.1f}")
    threshold = (memory.total - memory.available + 2 * GIB) / memory.total
    outer = {"seconds": 0.05, "hoarder": 1, "hoard": threshold + 0.01}
    section = {**SECTION, "trials": 3, "retries": 0}
    environment = {"RAY_memory_usage_threshold": f"{threshold:.4f}"}
    driver = start(tmp_path / "s", "ray", outer, section=section, environment=environment)
    _, errors = driver.communicate(timeout=3 * LIMIT_S)
    assert driver.returncode == 0, errors
    states = {number: trial.state for number, trial in state_of(tmp_path / "s").trials.items()}
    assert len(states) == section["trials"] and states.pop(1) == records.FAILED
    assert not {records.FAILED, records.RUNNING, records.WAITING} & set(states.values())
    reason = state_of(tmp_path / "s").trials[1].reason or ""
    assert reason.startswith("its worker was lost: ") and "ran out of memory" in reason


def test_a_second_driver_is_refused_with_the_first_ones_pid(tmp_path: Path) -> None:
    driver = start(tmp_path / "s", "inline", {"seconds": 0.2})
    wait_for_steps(tmp_path / "s", 1, driver)
    second = start(tmp_path / "s", "inline", {"seconds": 0.2})
    _, errors = second.communicate(timeout=30)
    driver.kill()
    driver.communicate()
    assert second.returncode != 0 and f"process {driver.pid} on" in errors


def test_a_new_director_adopts_what_a_killed_one_had_running(tmp_path: Path) -> None:
    driver = start(tmp_path / "s", "inline", {"seconds": 0.05})
    wait_for_steps(tmp_path / "s", 2, driver)
    driver.kill()
    driver.communicate()
    director = Director(Journal(tmp_path / "s"), toy.ToySpace({"seconds": 0}))
    assert [trial.state for trial in director.state.trials.values()] == [records.RUNNING]
    director.start()
    assert [trial.state for trial in director.state.trials.values()] == [records.WAITING]
