"""The servers of ``metaloom ui``: on this machine only, and gone afterwards, with those started from its pages."""

import contextlib
import http.cookiejar
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from metaloom.dashboards.pages.services import CompanionState
from metaloom.dashboards.queries import QueryError
from metaloom.learners.errors import BadInput
from metaloom.orchestrator.command_line import cli, local_server, pages_server
from metaloom.orchestrator.command_line.companions import LocalCompanions
from tests.support.tracking_servers import wait_until


def test_a_taken_port_is_refused_or_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind((local_server.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match="leave it out"):
            local_server.free_port(port)
    assert local_server.free_port(port) == port
    assert local_server.free_port(None) >= local_server.FIRST_PORT


def test_two_sockets_never_share_a_port() -> None:
    with local_server.bound_socket(local_server.HOST, None) as one:
        with local_server.bound_socket(local_server.HOST, None) as other:
            assert one.getsockname() != other.getsockname()
        with pytest.raises(BadInput, match="in use"):
            local_server.bound_socket(local_server.HOST, one.getsockname()[1])


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(BadInput, match=r"--host 192\.0\.2\.1: .*an address of this machine"):
        local_server.bound_socket("192.0.2.1", None)


def test_no_store_no_server(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["ui", "--store", str(tmp_path / "nowhere"), "--no-browser"]) == 2
    assert "there is no store" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("host", "alone"), [("127.0.0.1", True), ("::1", True), ("127.0.1.1", True), ("10.0.0.1", False)]
)
def test_which_addresses_only_this_machine_can_reach(host: str, alone: bool) -> None:
    assert pages_server.is_loopback(host) is alone
    assert host in pages_server.allowed_hosts(host)


@pytest.mark.parametrize("ignored", [False, True], ids=["from a terminal", "as a shell's background job"])
def test_ctrl_c_leaves_nothing_of_it(tmp_path: Path, ignored: bool) -> None:
    line = [sys.executable, "-m", "metaloom", "ui", "--no-browser", "--json", "--store", str(tmp_path)]
    handler = signal.SIG_IGN if ignored else signal.default_int_handler
    before = signal.signal(signal.SIGINT, handler)  # what a process ignores, its children are born ignoring
    try:
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    text = ""
    while not text.endswith("}\n"):
        text += process.stdout.readline()
    document = json.loads(text)
    try:
        assert document["pid"] == process.pid and document["read_only"] is False
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
        with browser.open(document["url"], timeout=30) as page:
            assert page.status == 200
        place = urlsplit(document["url"])
        address = f"{place.scheme}://{place.netloc}"
        change = urllib.request.Request(f"{address}/companions/mlflow/start", b"", {"Origin": address})
        browser.open(change, timeout=30).close()
        own = psutil.Process(process.pid)
        wait_until(lambda: _listening(own.children(recursive=True)) != set(), 120.0)
        started = own.children(recursive=True)
        assert len(started) == 2  # the launcher and one worker: no job runner
        assert _listening([own, *started]) == {local_server.HOST}
    finally:
        os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    assert not [child for child in started if child.is_running()]


def _listening(processes: list[psutil.Process]) -> set[str]:
    found: set[str] = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            found |= {one.laddr.ip for one in process.net_connections("tcp") if not one.raddr}
    return found


def test_a_companion_that_does_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, and long enough to be looked at as one")
    companions = LocalCompanions(tmp_path)
    try:
        companions.start("mlflow")
        wait_until(lambda: companions.state("mlflow").state != "starting", 120.0)
        assert companions.state("mlflow").state == "failed"
        assert companions.state("mlflow").message
    finally:
        companions.close()


def test_a_companion_that_ends_by_itself_says_so_and_starts_again(tmp_path: Path) -> None:
    companions = LocalCompanions(tmp_path)
    try:
        assert companions.state("mlflow").state == "off"
        before = {child.pid for child in psutil.Process().children(recursive=True)}
        first = _started(companions)
        assert companions.start("mlflow").url == first.url  # the running one
        for child in psutil.Process().children(recursive=True):
            if child.pid not in before:
                child.kill()
        wait_until(lambda: companions.state("mlflow").state == "failed", 30.0)
        assert "ended by itself" in companions.state("mlflow").message
        assert _started(companions).state == "running"
    finally:
        companions.close()
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def _started(companions: LocalCompanions) -> CompanionState:
    companions.start("mlflow")
    wait_until(lambda: companions.state("mlflow").state != "starting", 120.0)
    return companions.state("mlflow")


def test_an_unknown_companion_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="did you mean 'mlflow'"):
        LocalCompanions(tmp_path).start("mlfow")
