"""Ctrl-C, SIGTERM and SIGHUP: the exit code tells, the records are complete, nothing is left."""

import os
import signal
import time

import pytest

from metaloom.workers.records import names
from tests.faults.conftest import Compare
from tests.faults.driver import Place, family, left_of, wait_until

ONCE = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.mark.faults
@pytest.mark.parametrize("executor", ["inline", "ray"])
@pytest.mark.parametrize("number", ONCE)
def test_a_signal(place: Place, assert_equal: Compare, executor: str, number: signal.Signals) -> None:
    process = place.start("search", "--executor", executor)
    assert wait_until(lambda: place.count() > 3, process)
    relatives, began = family(process), time.monotonic()
    os.kill(process.pid, number)
    told = "".join(process.communicate(timeout=60))
    assert process.returncode == ONCE[number], told
    assert "metaloom resume" in told and place.count(names.SEARCH_ENDED) == 1
    ended = time.monotonic() - began
    assert left_of(relatives) == []
    code, _, errors = place.run("resume", "--executor", executor)
    assert code == 0, errors
    assert_equal(place)
    print(f"\n{number.name} ({executor}): ended after {ended:.1f} s")


@pytest.mark.faults
def test_ctrl_c_twice(place: Place, assert_equal: Compare) -> None:
    process = place.start("search", "--executor", "ray")
    assert wait_until(lambda: place.count() > 3, process)
    relatives = family(process)
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130 and left_of(relatives) == []
    assert place.run("resume", "--executor", "inline")[0] == 0
    assert_equal(place)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_two_searches_at_once_and_three_of_one_name(place: Place, assert_equal: Compare) -> None:
    others = [Place(place.store, name) for name in ("second", "third")]
    named = [Place(place.store, "one-name") for _ in range(3)]
    begun = [one.start("search", "--executor", "inline") for one in (place, *others, *named)]
    ended = [process.communicate(timeout=300)[1] for process in begun]
    codes = [process.returncode for process in begun]
    assert codes[:3] == [0, 0, 0], ended
    assert sorted(codes[3:]) == [0, 2, 2], ended
    assert_equal(place)
