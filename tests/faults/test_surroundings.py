"""Clocks that jump, folders that move, that cannot be written, and with long names."""

import shutil
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Compare
from tests.faults.driver import Place, wait_until
from tests.faults.faults import DAY_S
from tests.faults.soak import jumped


def interrupted(place: Place, before: str = "") -> None:
    """Begin a search and kill its driver after some reports."""
    process = place.start("search", "--executor", "inline", before=before)
    assert wait_until(lambda: place.count() >= 6, process)
    process.kill()
    process.communicate()


@pytest.mark.parametrize("seconds", [DAY_S, pytest.param(-DAY_S, marks=pytest.mark.faults)])
def test_a_clock_that_jumps_between_two_sessions_spends_no_budget(
    place: Place, assert_equal: Compare, seconds: int
) -> None:
    place.overrides = ("search.time_budget_s=3600",)
    interrupted(place)
    process = place.start("resume", "--executor", "inline", before=jumped(seconds))
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert_equal(place)


@pytest.mark.faults
def test_a_clock_that_jumps_amid_a_session_spends_no_budget(tmp_path: Path, assert_equal: Compare) -> None:
    place = Place(tmp_path / "store", overrides=("search.time_budget_s=3600",))
    before = "import time\nreal = time.time\nbegan = real()\n"
    before += f"time.time = lambda: real() + ({DAY_S} if real() - began > 6 else 0)"
    process = place.start("search", "--executor", "inline", before=before)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert_equal(place)


@pytest.mark.faults
def test_a_store_that_moves_to_a_long_path_with_blanks(tmp_path: Path, assert_equal: Compare) -> None:
    place = Place(tmp_path / "store")
    interrupted(place)
    moved = Place(tmp_path / ("moved away, to a place with a long näme " * 3).strip() / "store")
    moved.store.parent.mkdir()
    shutil.move(place.store, moved.store)
    code, _, errors = moved.run("resume", "--executor", "inline")
    assert code == 0, errors
    assert not place.store.exists()
    assert_equal(moved)


@pytest.mark.faults
def test_time_between_a_kill_and_the_resume_spends_no_budget(tmp_path: Path, assert_equal: Compare) -> None:
    place = Place(tmp_path / "store", overrides=("search.time_budget_s=60",))
    interrupted(place)
    time.sleep(61)
    code, _, errors = place.run("resume", "--executor", "inline")
    assert code == 0, errors
    assert_equal(place)
