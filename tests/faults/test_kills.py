"""kill -9 of workers, drivers, servers and groups, at instants that are drawn, and at those that can be named."""

import os
import random
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.faults.conftest import Compare
from tests.faults.driver import Place, family, idle_workers, left_of, server, wait_until, workers

ARM = "from tests.faults.instants import arm\narm({at!r}, {action!r}, {counted!r}, seed={seed})"


def struck_at(place: Place, verb: str, executor: str, at: int | None, action: str, counted: Path) -> tuple[int, str]:
    """Run a search up to an instant of its writing; return its exit code and what it told."""
    before = ARM.format(at=at, action=action, counted=str(counted), seed=at or 0)
    process = place.start(verb, "--executor", executor, before=before)
    _, errors = process.communicate(timeout=240)
    return process.returncode or 0, errors


def go_on(place: Place, executor: str = "inline") -> str:
    """Resume the search to its end, or begin it if it has not begun; return what was told."""
    code, _, errors = place.run(place.verb, "--executor", executor)
    assert code == 0, errors
    return errors


@pytest.mark.parametrize("number", [1, pytest.param(4, marks=pytest.mark.faults)])
def test_a_kill_between_checkpoint_and_report_loses_and_repeats_nothing(
    place: Place, assert_equal: Compare, number: int
) -> None:
    before = f"from tests.faults.instants import kill_after_checkpoint\nkill_after_checkpoint({number})"
    process = place.start("search", "--executor", "inline", before=before)
    process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL and place.count() == number - 1
    go_on(place)
    assert_equal(place)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.faults) for seed in range(1, 4))])
def test_killed_again_and_again_at_instants_of_its_writing(
    fresh: Place, assert_equal: Compare, tmp_path: Path, seed: int
) -> None:
    """Each session is killed within its first writes, or later: a chain on one search, in a fresh store."""
    draw, kills = random.Random(seed), 0
    for _ in range(3 if seed == 0 else 20):
        at = int(10 ** draw.uniform(0, 2.3))
        code, errors = struck_at(
            fresh, fresh.verb, "inline", at, draw.choice(["kill", "kill soon"]), tmp_path / "count"
        )
        assert code in (0, -signal.SIGKILL), errors
        kills += code != 0
    go_on(fresh)
    fresh.run("sync")
    assert_equal(fresh)
    print(f"\n{kills} kills of one search: no difference")


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("executor", ["inline", "ray"])
@pytest.mark.parametrize("action", ["kill", "no room"])
def test_every_instant_of_the_first_writes_of_a_fresh_store(
    tmp_path: Path, assert_equal: Compare, executor: str, action: str
) -> None:
    counted = tmp_path / "count"
    code, errors = struck_at(Place(tmp_path / "counted"), "search", executor, None, action, counted)
    assert code == 0, errors
    number = int(counted.read_text())
    step = 1 if executor == "inline" else 8  # Ray's start takes ten seconds each time
    tried = [*range(1, min(number, 24), step), *range(24, number, max(step, number // 24))]
    for at in tried:
        place = Place(tmp_path / f"at {at}" / "store")
        place.store.parent.mkdir()
        code, errors = struck_at(place, "search", executor, at, action, counted)
        assert code in (0, -signal.SIGKILL if action == "kill" else 3), f"instant {at}: {errors}"
        go_on(place)
        place.run("sync")
        assert_equal(place)
    print(f"\n{action} at {len(tried)} of {number} instants ({executor}): no difference")


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(4))
def test_workers_killed_at_random_instants(place: Place, assert_equal: Compare, seed: int) -> None:
    draw, waits = random.Random(seed), list[float]()
    process = place.start("search", "--executor", "ray")
    for kill in range(5):
        wanted = draw.randrange(4 * kill, 4 * kill + 4)
        if not wait_until(lambda wanted=wanted: place.count() > wanted and bool(workers(process)), process):
            break
        time.sleep(draw.uniform(0, 0.2))
        found, killed, reports = workers(process), time.monotonic(), place.count()
        for worker in found:
            worker.kill()
        if not found:  # between two trials
            continue
        wait_until(lambda reports=reports: place.count() > reports, process)
        waits.append(time.monotonic() - killed)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert waits, "no worker was killed"
    assert_equal(place)
    print(f"\n{len(waits)} kills of workers: next report after {statistics.median(waits):.1f} s (median)")


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_each_lost_worker_is_followed_by_one_that_has_started(place: Place) -> None:
    waits = list[float]()
    endless = Place(place.store, overrides=("outer.steps=1000000", "search.scheduler=none", "search.retries=9"))
    process = endless.start("search", "--executor", "ray")
    for kill in range(4):
        ready = wait_until(lambda: bool(workers(process)) and bool(idle_workers(process)), process)
        assert ready, f"no worker was started after {kill} kills"
        time.sleep(10)  # Ray gives a worker its title before its imports, which take some seconds
        found, started, reports = workers(process), idle_workers(process), endless.count()
        killed = time.monotonic()
        for worker in found:
            worker.kill()
        assert wait_until(lambda reports=reports: endless.count() > reports, process)
        waits.append(time.monotonic() - killed)
        assert {one.pid for one in workers(process)} <= started
    process.terminate()
    process.communicate(timeout=60)
    print(f"\n{len(waits)} kills beside a started worker: next report after {statistics.median(waits):.1f} s (median)")


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(2))
def test_a_driver_on_ray_killed_at_random_instants(place: Place, assert_equal: Compare, seed: int) -> None:
    draw, waits, starts = random.Random(seed), list[float](), list[float]()
    for kill in range(5):
        begun, reports = time.monotonic(), place.count()
        process = place.start(place.verb, "--executor", "ray")
        if wait_until(lambda one=process: server(one, "raylet") is not None, process):
            starts.append(time.monotonic() - begun)
        if not wait_until(lambda reports=reports: place.count() > reports, process):
            break
        if kill:
            waits.append(time.monotonic() - begun)
        time.sleep(draw.uniform(0, 2))
        relatives = family(process)
        process.kill()
        process.communicate()
        assert left_of(relatives) == []
    else:
        go_on(place, "ray")
    assert_equal(place)
    start, first, bare = statistics.median(starts), statistics.median(waits), bare_start_s()
    print(f"\n{len(waits)} resumed: raylet began after {start:.1f} s, first new report after {first:.1f} s (medians)")
    print(f"Ray alone, from the start of its process to the first answer of an actor: {bare:.1f} s (median of 3)")


def bare_start_s() -> float:
    """Return how long Ray takes to start and to answer by an actor, in a process of its own; the median of three."""
    code = (
        "import ray\n"
        "ray.init('local', num_cpus=1, include_dashboard=False, log_to_driver=False)\n"
        "@ray.remote\nclass Actor:\n    def answer(self): return 1\n"
        "ray.get(Actor.remote().answer.remote())\n"
        "print('answered', flush=True)\n"
    )
    times = list[float]()
    for _ in range(3):
        begun = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"answered\n"
            times.append(time.monotonic() - begun)
    return statistics.median(times)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", ["raylet", "gcs_server", "group"])
def test_a_server_of_ray_or_the_whole_group_killed(place: Place, assert_equal: Compare, victim: str) -> None:
    process = place.start("search", "--executor", "ray")
    wait_until(lambda: place.count() > 5, process)
    relatives = family(process)
    if victim == "group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        found = server(process, victim)
        assert isinstance(found, psutil.Process)
        found.kill()
    killed = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if victim == "group" else 3), errors
    ended = time.monotonic() - killed
    assert left_of(relatives) == []
    gone = time.monotonic() - killed
    go_on(place, "ray")
    assert_equal(place)
    print(f"\nkill -9 of {victim}: ended after {ended:.1f} s, nothing left after {gone:.1f} s")
