"""``metaloom ui``: serves the MLflow UI on a store, on this machine only, until Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from metaloom.learners.errors import BadEnvironment, BadInput
from metaloom.orchestrator.command_line.answers import JsonOption, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.interruption import handled
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.orchestrator.command_line import tables
    from metaloom.orchestrator.tracking import client as tracking_client
    from metaloom.orchestrator.tracking import projection

HOST = "127.0.0.1"
FIRST_PORT, PORTS_TRIED = 5000, 50
START_S, STOP_S = 120.0, 10.0


def ui(
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="By default a free one.")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in the browser.")] = True,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Open the MLflow UI on a store, on 127.0.0.1; Ctrl-C ends it."""
    with answering(as_json) as answer:
        chosen = free_port(port)
        screen = tables.console(sys.stderr)
        screen.print(f"starting the MLflow UI on {store} ...", markup=False)
        if told := projection.own_database(store).settle():
            screen.print(told, markup=False)
        with served(store, chosen) as process:
            url = f"http://{HOST}:{chosen}"
            message = f"{url} shows {store}; Ctrl-C ends it"
            answer.give({"url": url, "pid": process.pid}, lambda screen: screen.print(message, markup=False))
            if browser:
                webbrowser.open(url)
            serve(process)


def free_port(asked: int | None) -> int:
    """Return ``asked``, or the first free port from 5000 on.

    Raises:
        BadInput: ``asked`` is in use.
        BadEnvironment: All tried ports are in use.
    """
    for port in [asked] if asked else range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
                return port
            except OSError as error:
                if asked:
                    raise BadInput(f"--port {asked}: {error.strerror}; leave it out to get a free one") from error
    raise BadEnvironment(f"no port from {FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1} is free; give --port")


@contextmanager
def served(store: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Serve the UI within this context; end all its processes afterwards.

    Raises:
        BadInput: There is no such store.
        BadEnvironment: The server did not start; with its last lines of output.
    """
    if not store.is_dir():
        raise BadInput(f"there is no store {store}: run a search first, or name another one with --store")
    place, client = store.absolute(), tracking_client
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", HOST, "--port", str(port)),
        *("--backend-store-uri", client.tracking_uri(place, None)),
        *("--default-artifact-root", (place / client.MLFLOW_ARTIFACTS).as_uri()),
    ]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **client.QUIET, **client.FORCED_ON_SERVERS},
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


def serve(process: "subprocess.Popen[bytes]") -> None:
    """Wait for the user's Ctrl-C; raises BadEnvironment if the server ends by itself."""
    code = process.wait()
    ending = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    raise BadEnvironment(f"the MLflow server has ended by itself ({ending}); start it again with 'metaloom ui'")


def _wait(process: "subprocess.Popen[bytes]", port: int, log: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.1)
    last = os.pread(log, 100_000, 0).decode(errors="replace").strip().splitlines()[-5:]
    raise BadEnvironment("the MLflow server did not start:\n" + "\n".join(last))


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


COMMAND = Command(ui, examples=("metaloom ui --port 5001 --no-browser",))
