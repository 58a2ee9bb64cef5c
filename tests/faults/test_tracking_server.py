"""A tracking server that is absent, dies, comes back or hangs: trials are as fast, and nothing is lost."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.conftest import Compare
from tests.faults.driver import Place, wait_until

QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


class Server:
    """An MLflow server of a store of its own, on a port that stays the same."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.database = folder, folder / "server.db"
        with closing(socket.create_server(("127.0.0.1", 0))) as listening:
            self.port = listening.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        files = ["--backend-store-uri", f"sqlite:///{self.database}", "--artifacts-destination", str(self.folder)]
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(self.port), *files]
        environment = {**os.environ, **QUIET}
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, start_new_session=True)
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < deadline and self._process.poll() is None, "the server has not started"
                time.sleep(0.2)

    def signal(self, number: signal.Signals) -> None:
        """Send its processes a signal."""
        if self._process is not None:
            os.killpg(self._process.pid, number)

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that does not run yet."""
    one = Server(tmp_path)
    yield one
    one.stop()


@pytest.fixture
def place(tmp_path: Path, server: Server) -> Place:
    """A search that is tracked by the server."""
    return Place(tmp_path / "store", overrides=(f"tracking.uri={server.uri}",))


def begun(place: Place, reports: int = 3) -> "subprocess.Popen[str]":
    """Start the search, and wait for some reports."""
    process = place.start("search", "--executor", "inline")
    assert wait_until(lambda: place.count() > reports, process)
    return process  # type: ignore[return-value]


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
    server.start()
    process = begun(place)
    server.stop()
    assert wait_until(lambda: place.count() > 12, process)  # type: ignore[arg-type]
    server.start()
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    code, out, errors = place.run("sync")
    assert code == 0, out + errors
    assert_equal(place, tracking_database=server.database)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_server_that_hangs(place: Place, server: Server, assert_equal: Compare) -> None:
    server.start()
    process = begun(place)
    server.signal(signal.SIGSTOP)
    assert wait_until(lambda: place.count("search_ended") > 0, process)  # type: ignore[arg-type]
    ended = time.monotonic()
    _, errors = process.communicate(timeout=240)
    seconds = time.monotonic() - ended
    assert process.returncode == 0 and "metaloom sync" in errors, errors
    assert seconds < 30, "a hanging server holds the search up at its end"
    server.signal(signal.SIGCONT)
    code, out, errors = place.run("sync")
    assert code == 0, out + errors
    assert_equal(place, tracking_database=server.database)
    print(f"\nhanging server: {seconds:.1f} s at the end")
