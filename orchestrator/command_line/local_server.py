"""Runs servers on this machine only: the ports they take, and their processes, which end with this one."""

import errno
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from metaloom.learners.errors import BadEnvironment, BadInput
from metaloom.orchestrator.interruption import handled
from metaloom.orchestrator.tracking.client import QUIET

HOST = "127.0.0.1"
FIRST_PORT, PORTS_TRIED = 5000, 50
START_S, STOP_S = 120.0, 10.0


def free_port(asked: int | None) -> int:
    """Return ``asked``, or the first free port from 5000 on; raises what ``bound_socket`` raises."""
    with bound_socket(HOST, asked) as probe:
        return int(probe.getsockname()[1])


def kernel_port() -> int:
    """Return a free port that the kernel chooses.

    A program takes seconds until it listens; one of the first ports from 5000 on would be taken by other pages by then.
    """
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def bound_socket(host: str, asked: int | None) -> socket.socket:
    """Return a listening socket at ``asked``, or at the first free port from 5000 on.

    Raises:
        BadInput: ``asked`` is in use, or this machine has no such address.
        BadEnvironment: All tried ports are in use.
    """
    for port in [asked] if asked else range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((host, port))
            made.listen()  # a second process could bind the same port until one listens
            return made
        except OSError as error:
            made.close()
            if isinstance(error, socket.gaierror) or error.errno in (errno.EADDRNOTAVAIL, errno.EINVAL):
                raise BadInput(f"--host {host}: {error.strerror}; give an address of this machine") from error
            if asked:
                raise BadInput(f"--port {asked}: {error.strerror}; leave it out to get a free one") from error
    raise BadEnvironment(f"no port from {FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1} is free; give --port")


@contextmanager
def running(command: Sequence[str], port: int, *, env: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server within this context; end all its processes afterwards.

    Args:
        command: The program and its arguments.
        port: Where it listens once it has started.
        env: Variables beside those of this process.

    Raises:
        BadEnvironment: The server did not start; with its last lines of output.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **QUIET, **env},
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches this process only, which then ends the server's process group
        )
        try:
            # A shell makes its background jobs ignore SIGINT, and Python keeps that; here it leaves too.
            with handled(_leave):
                _wait(process, port, log.fileno())
                yield process
        finally:
            _end(process)


def wait(process: "subprocess.Popen[bytes]", again: str) -> None:
    """Wait for the user's Ctrl-C; raises BadEnvironment, which names the command ``again``, if the server ends."""
    code = process.wait()
    ending = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    raise BadEnvironment(f"the MLflow server has ended by itself ({ending}); start it again with '{again}'")


def _wait(process: "subprocess.Popen[bytes]", port: int, log: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.1)
    last = os.pread(log, 100_000, 0).decode(errors="replace").strip().splitlines()[-5:]
    raise BadEnvironment("the server did not start:\n" + "\n".join(last))


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the server's process group: SIGTERM, then SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break  # the whole group has ended
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
