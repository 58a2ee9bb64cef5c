"""The contract of executors, over all that are registered, and what Ray's must do beyond it."""

import contextlib
import functools
import os
import signal
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from metaloom.orchestrator.errors import ClusterError, StoreError
from metaloom.orchestrator.executors import EXECUTORS
from metaloom.orchestrator.executors.inline import InlineExecutor
from metaloom.orchestrator.interruption import Interruption, Stopped
from metaloom.testing import ExecutorContract, toy
from metaloom.testing.executors import Make, Opened, run
from metaloom.workers.records import names as records

if TYPE_CHECKING:
    from metaloom.orchestrator.executors.ray_cluster.connection import Connection


def on_ray(connection: "Connection") -> Make:
    from metaloom.orchestrator.executors.ray_cluster.tune import RayExecutor

    return lambda interruption: RayExecutor(interruption, connection)


class TestExecutors(ExecutorContract):
    kinds = sorted(EXECUTORS)

    @pytest.fixture
    def make(self, executor: str, request: pytest.FixtureRequest) -> Make:
        if executor == "ray":
            request.getfixturevalue("local_ray")  # one Ray for all tests: the executor uses a Ray that runs already
        return functools.partial(Opened, executor)


def test_a_search_that_a_signal_breaks_off_gives_its_room_back(local_ray: "Connection", tmp_path: Path) -> None:
    """Whoever keeps the error, whose traceback knows Tune, keeps no worker with it."""
    import ray

    from metaloom.orchestrator.executors.ray_cluster.tune import RayExecutor

    interruption = Interruption()

    def signal_when_it_has_room() -> None:
        while ray.available_resources().get("CPU") == 2:
            time.sleep(0.05)
        interruption.signal_number = signal.SIGINT

    signaller = threading.Thread(target=signal_when_it_has_room)
    signaller.start()
    director = toy.direct(tmp_path / "s", toy.ToySpace({"seconds": 0.1}))
    with pytest.raises(Stopped) as kept:
        RayExecutor(interruption, local_ray).run(director, toy.open_toy, concurrency=2)
    signaller.join()
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ray.available_resources().get("CPU") == 2 and kept.value is not None


def test_a_killed_worker_is_retried_from_its_checkpoint(local_ray: "Connection", tmp_path: Path) -> None:
    director = toy.direct(tmp_path / "s", toy.ToySpace({"seconds": 0.1}), trials=2)
    killer = threading.Thread(target=_kill_the_worker, args=(tmp_path / "s",))
    killer.start()
    run(on_ray(local_ray), director)
    killer.join()
    trial = director.state.trials[0]
    assert (trial.state, trial.attempts, trial.lost) == (records.FINISHED, 2, 1)
    steps = [line["step"] for line in toy.truth(tmp_path / "s", 0) if line["what"] == "step"]
    assert sorted(set(steps)) == list(range(1, toy.STEPS + 1)) and len(steps) <= toy.STEPS + 1
    whole = run(InlineExecutor, toy.direct(tmp_path / "whole", trials=2))
    assert [t.values for t in director.state.trials.values()] == [t.values for t in whole.state.trials.values()]


def _kill_the_worker(folder: Path) -> None:
    while len(lines := toy.truth(folder, 0)) < 5:
        time.sleep(0.01)
    os.kill(lines[-1]["pid"], signal.SIGKILL)


def test_trials_shorter_than_a_workers_start_still_run_two_at_a_time(local_ray: "Connection", tmp_path: Path) -> None:
    """Left to itself Tune gives a starting worker up for one that is free, and never gets to two."""
    director = toy.direct(tmp_path / "s", toy.ToySpace({"steps": 1, "seconds": 0.5}), trials=8)
    run(on_ray(local_ray), director, concurrency=2)
    pids = [toy.truth(tmp_path / "s", number)[-1]["pid"] for number in range(8)]
    assert len(set(pids)) == 2 and min(pids.count(pid) for pid in set(pids)) >= 3


def test_workers_are_reused(local_ray: "Connection", tmp_path: Path) -> None:
    run(on_ray(local_ray), toy.direct(tmp_path / "s"))
    assert len({line["pid"] for trial in range(6) for line in toy.truth(tmp_path / "s", trial)}) == 1


def test_a_cluster_without_room_is_waited_for_and_that_is_said(
    local_ray: "Connection", tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from metaloom.orchestrator.executors.ray_cluster import adapter

    monkeypatch.setattr(adapter, "SILENCE_S", 0.5)
    room = ray.util.placement_group([{"CPU": 2}])
    ray.get(room.ready(), timeout=60)
    director = toy.direct(tmp_path / "s", trials=1)
    leaver = threading.Thread(target=_leave_when_it_is_said, args=(caplog, room))
    leaver.start()
    run(on_ray(local_ray), director)
    leaver.join()
    assert director.is_over and "no Ray worker has started in 0 s" in caplog.text


def _leave_when_it_is_said(caplog: pytest.LogCaptureFixture, room: Any) -> None:
    import ray

    deadline = time.monotonic() + 60
    while "no Ray worker" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.05)
    ray.util.remove_placement_group(room)


@pytest.mark.timeout(120)
def test_an_error_while_no_trial_runs_ends_the_search(
    local_ray: "Connection", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune would wait ten minutes for the next trial before it asks anybody."""

    def without_room(**named: object) -> None:
        raise StoreError("the disk is full")

    director = toy.direct(tmp_path / "s")
    monkeypatch.setattr(director, "next_trial", without_room)
    with pytest.raises(StoreError, match="the disk is full"):
        run(on_ray(local_ray), director)


def test_what_no_node_has_is_refused(local_ray: "Connection", tmp_path: Path) -> None:
    from metaloom.orchestrator.executors.ray_cluster.tune import RayExecutor

    with pytest.raises(ClusterError, match=r"asks for 64 cpu.*change resources\.cpus"):
        RayExecutor(Interruption(), local_ray, resources={"cpus": 64}).run(toy.direct(tmp_path / "s"), toy.open_toy)


def test_ray_listens_on_this_machine_only_and_its_files_are_private(local_ray: "Connection") -> None:
    from metaloom.orchestrator.executors.ray_cluster import environment as ray_environment

    listening = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a worker of an earlier test, ending
            listening += [
                connection.laddr.ip
                for connection in process.net_connections(kind="tcp")
                if connection.status == psutil.CONN_LISTEN
            ]
    assert listening and all("127.0.0.1" in ip for ip in listening), listening
    folder = ray_environment.private_folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / ray_environment.TOKEN_FILE).stat().st_mode) == 0o600
