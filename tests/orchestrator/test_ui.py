"""The MLflow UI: on this machine only, and gone afterwards."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from metaloom.learners.errors import BadEnvironment, BadInput
from metaloom.orchestrator.command_line import local_server
from metaloom.orchestrator.commands import ui


def test_a_taken_port_is_refused_or_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind((ui.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match="leave it out"):
            ui.free_port(port)
    assert ui.free_port(port) == port
    assert ui.free_port(None) >= local_server.FIRST_PORT


def test_no_store_no_server(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no store"), ui.served(tmp_path / "nowhere", 5999):
        raise AssertionError("unreachable")


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, and long enough to be looked at as one")
    with pytest.raises(BadEnvironment, match="did not start"), ui.served(tmp_path, ui.free_port(None)):
        raise AssertionError("unreachable")


@pytest.mark.parametrize("ignored", [False, True], ids=["from a terminal", "as a shell's background job"])
def test_ctrl_c_leaves_nothing_of_it(tmp_path: Path, ignored: bool) -> None:
    command = [
        sys.executable,
        "-m",
        "metaloom.orchestrator.command_line.cli",
        "ui",
        "--no-browser",
        "--store",
        str(tmp_path),
    ]
    handler = signal.SIG_IGN if ignored else signal.default_int_handler
    before = signal.signal(signal.SIGINT, handler)  # what a process ignores, its children are born ignoring
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    url = process.stdout.readline().split()[0]
    started = psutil.Process(process.pid).children(recursive=True)
    try:
        with urllib.request.urlopen(url, timeout=30) as page:
            assert page.status == 200
        listening = [one.laddr.ip for child in started for one in child.net_connections("tcp") if not one.raddr]
        assert set(listening) == {ui.HOST}
        assert len(started) == 2  # the launcher and one worker: no job runner
    finally:
        os.kill(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    assert not [child for child in started if child.is_running()]


def test_a_server_that_ends_by_itself_is_no_success(tmp_path: Path) -> None:
    with (
        pytest.raises(BadEnvironment, match="ended by itself \\(killed by SIGKILL"),
        ui.served(tmp_path, ui.free_port(None)) as server,
    ):
        os.killpg(server.pid, signal.SIGKILL)
        ui.wait(server, "metaloom ui")
