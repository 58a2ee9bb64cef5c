"""The guard ends what a killed process has left, nothing else, and itself: real processes and signals."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.support.processes import Process

LIMIT_S = 10.0
DRIVER = """
import os, subprocess, sys, time
from pathlib import Path
from metaloom.orchestrator.executors.ray_cluster.guard import guarded
folder, how = Path(sys.argv[1]), sys.argv[2]
folder.mkdir()
spared = set()
with guarded(f"METALOOM_TEST={folder}", folder, os.environ, spared):
    mine = {**os.environ, "METALOOM_TEST": str(folder)}
    nowhere = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    marked = subprocess.Popen(["sleep", "600"], env=mine, start_new_session=True, **nowhere)
    other = subprocess.Popen(["sleep", "600"], env={**mine, "METALOOM_TEST": f"{folder}0"}, **nowhere)
    if how == "forked" and os.fork() == 0:  # it holds the guard's pipe, and the pipes of the test
        time.sleep(600)
    print(*spared, marked.pid, other.pid, flush=True)
    sys.stdin.readline()
"""


def driving(folder: Path, how: str = "") -> tuple[Process, list[int]]:
    """Start a driver; return it, and the PIDs of its guard, a process of its Ray, and another child."""
    driver = Process("-c", DRIVER, str(folder), how, new_session=True)
    return driver, [int(pid) for pid in driver.stdout.readline().split()]


def wait_for_the_end_of(*pids: int) -> None:
    deadline = time.monotonic() + LIMIT_S
    while alive := [pid for pid in pids if _lives(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("how", ["killed", "killed with its process group", "told to end too", "forked"])
def test_what_a_killed_process_leaves_is_ended_and_nothing_else(tmp_path: Path, how: str) -> None:
    driver, (guard, marked, other) = driving(tmp_path / "ray", how)
    if how == "told to end too":  # as systemd and Slurm do, to every process; at the guard's start
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            os.kill(guard, number)
    started = time.monotonic()
    if how == "killed with its process group":
        os.killpg(driver.pid, signal.SIGKILL)
    else:
        driver.kill()
    driver.wait(LIMIT_S)
    wait_for_the_end_of(guard, marked)
    assert not (tmp_path / "ray").exists()
    assert time.monotonic() - started < LIMIT_S
    assert _lives(other) == (how != "killed with its process group")
    if how != "killed with its process group":
        os.killpg(driver.pid, signal.SIGKILL)


def test_the_guard_ends_with_a_process_that_ends_in_order(tmp_path: Path) -> None:
    driver, (guard, marked, other) = driving(tmp_path / "ray")
    assert psutil.Process(guard).num_fds() <= 4  # its standard files: no pipe of ours is kept open by it
    started = time.monotonic()
    _, errors = driver.communicate("\n", timeout=LIMIT_S)
    assert (driver.returncode, errors) == (0, "")
    assert time.monotonic() - started < LIMIT_S / 2
    assert not _lives(guard) and not _lives(marked)
    assert (tmp_path / "ray").exists()  # for the process's next Ray
    os.kill(other, signal.SIGKILL)
