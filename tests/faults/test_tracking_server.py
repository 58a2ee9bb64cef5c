"""A tracking server that is absent, dies, comes back or hangs: trials are as fast, and nothing is lost."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import Compare
from tests.faults.driver import Place, wait_until
from tests.support.processes import Process
from tests.support.tracking_servers import Serve, kill, tracking_server

LONGEST_END_S = 15.0  # 4 s of waiting for an answer, and the end of the process


@dataclass
class Server:
    """An MLflow server that does not run yet, on a port that stays the same."""

    uri: str
    start: Serve
    database: Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that does not run yet."""
    with tracking_server(tmp_path) as (uri, serve):
        yield Server(uri, serve, tmp_path / "server.db")


@pytest.fixture
def place(tmp_path: Path, server: Server) -> Place:
    """A search that is tracked by the server."""
    return Place(tmp_path / "store", overrides=(f"tracking.uri={server.uri}",))


def begun(place: Place, reports: int = 3) -> Process:
    """Start the search, and wait for some reports."""
    process = place.start("search", "--executor", "inline")
    assert wait_until(lambda: place.count() > reports, process)
    return process


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_server_that_is_absent_at_first(place: Place, server: Server, assert_equal: Compare) -> None:
    began = time.monotonic()
    code, _, errors = place.run("search", "--executor", "inline")
    seconds = time.monotonic() - began
    assert code == 0 and errors.count("cannot be written") == 1, errors
    code, out, errors = place.run("sync")
    assert code == 1, out + errors
    server.start()
    code, out, errors = place.run("sync")
    assert code == 0, out + errors
    assert_equal(place, tracking_database=server.database)
    print(f"\nabsent server: search {seconds:.1f} s, one warning; sync sends everything later")


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_server_that_dies_and_comes_back(place: Place, server: Server, assert_equal: Compare) -> None:
    running = server.start()
    process = begun(place)
    kill(running)
    assert wait_until(lambda: place.count() > 12, process)
    server.start()
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    code, out, errors = place.run("sync")
    assert code == 0, out + errors
    assert_equal(place, tracking_database=server.database)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_server_that_hangs(place: Place, server: Server, assert_equal: Compare) -> None:
    running = server.start()
    process = begun(place)
    os.killpg(running.pid, signal.SIGSTOP)
    assert wait_until(lambda: place.count("search_ended") > 0, process)
    ended = time.monotonic()
    _, errors = process.communicate(timeout=240)
    seconds = time.monotonic() - ended
    assert process.returncode == 0 and "metaloom sync" in errors, errors
    assert seconds < LONGEST_END_S, "a hanging server holds the search up at its end"
    os.killpg(running.pid, signal.SIGCONT)
    code, out, errors = place.run("sync")
    assert code == 0, out + errors
    assert_equal(place, tracking_database=server.database)
    print(f"\nhanging server: {seconds:.1f} s at the end")
