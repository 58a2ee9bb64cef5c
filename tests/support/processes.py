"""Processes of Python that begin with the libraries imported: real ones, which can be killed, at a tenth of the time.

For a test of what a process does. A test of what it imports, or of how an interpreter starts, uses ``subprocess``.
"""

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import filelock

from tests.support import fork_server

OWN_TABLES = {fork_server.OWN_TABLES: "1"}  # in the environment of a process whose MLflow makes its tables itself
PRELOADED = "RAY_preload_python_modules"  # what a worker of Ray imports when it starts
SERVER = Path(fork_server.__file__)


@cache
def _server() -> socket.socket:
    """Connect to the server, which is one for all processes of a test run, and ends with the last of them."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    folder = Path(tempfile.gettempdir()) / f"metaloom-tests-{run}"
    folder.mkdir(mode=0o700, exist_ok=True)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with filelock.FileLock(folder / "lock"):
        try:
            client.connect(str(folder / "socket"))
        except (FileNotFoundError, ConnectionRefusedError):
            _start_server(folder / "socket")
            client.connect(str(folder / "socket"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return client


def _start_server(path: Path) -> None:
    from metaloom.orchestrator.executors.ray_cluster import environment as ray_environment
    from metaloom.orchestrator.tracking import client as tracking_client

    quiet = {**tracking_client.QUIET, **ray_environment.QUIET}  # which the libraries read when they are imported
    environment = {**quiet, **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}}
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(path))
        listening.listen()
        command = [sys.executable, str(SERVER), str(listening.fileno())]
        subprocess.Popen(command, pass_fds=[listening.fileno()], env=environment, start_new_session=True)


class Process:
    """A process of Python with pipes for its standard files, as text; much of ``subprocess.Popen``.

    Args:
        arguments: What follows ``python``: ``-c CODE``, ``-m MODULE`` or a script, and the program's own.
        folder: Where it runs; None: here.
        environment: Its environment; None: this process's.
        new_session: Make it the leader of a session, and so of a process group.
    """

    def __init__(
        self,
        *arguments: str,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        new_session: bool = False,
    ) -> None:
        request = {
            "arguments": arguments,
            "folder": str(folder or Path.cwd()),
            "environment": dict(os.environ if environment is None else environment),
            "new_session": new_session,
        }
        pipes = [os.pipe() for _ in range(4)]
        (given, self_in), (self_out, out), (self_errors, errors), (reports, report) = pipes
        socket.send_fds(_server(), [json.dumps(request).encode()], [given, out, errors, report])
        for one in (given, out, errors, report):
            os.close(one)
        self.args = arguments
        self.stdin, self.stdout, self.stderr = os.fdopen(self_in, "w"), os.fdopen(self_out), os.fdopen(self_errors)
        self._reports = os.fdopen(reports)
        self.pid = int(self._reports.readline())
        self.returncode: int | None = None
        self._ended = threading.Thread(target=self._wait, daemon=True)
        self._ended.start()

    def _wait(self) -> None:
        with self._reports:
            self.returncode = int(self._reports.readline())

    def poll(self) -> int | None:
        """Return the exit code, None while it runs; it is negative for a signal."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raises ``subprocess.TimeoutExpired``."""
        self._ended.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode

    def communicate(self, given: str = "", timeout: float | None = None) -> tuple[str, str]:
        """Give it its standard input, read its output until it has ended, and return what it wrote."""
        found: list[str] = ["", ""]

        def read(index: int) -> None:
            with (self.stdout, self.stderr)[index] as file:
                found[index] = file.read()

        readers = [threading.Thread(target=read, args=(index,), daemon=True) for index in range(2)]
        for reader in readers:
            reader.start()
        try:
            self.stdin.write(given)
            self.stdin.close()
        except BrokenPipeError:
            pass
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():  # a process that it has left behind holds the pipe
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return found[0], found[1]

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Tell it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


def run(
    *arguments: str, folder: Path | None = None, environment: Mapping[str, str] | None = None, given: str = "",
    check: bool = False, timeout: float | None = 240.0,
) -> "subprocess.CompletedProcess[str]":  # fmt: skip
    """Run Python to its end, as ``subprocess.run`` does with ``capture_output``."""
    process = Process(*arguments, folder=folder, environment=environment)
    out, errors = process.communicate(given, timeout)
    done = subprocess.CompletedProcess(arguments, process.wait(), out, errors)
    if check and done.returncode:
        raise AssertionError(f"exit code {done.returncode}: {arguments}\n{out}{errors}")
    return done
