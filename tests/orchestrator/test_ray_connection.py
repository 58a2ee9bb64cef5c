"""A cluster that was joined by its address, and then loses its head."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from metaloom.testing import toy
from tests.support import processes
from tests.support.processes import Process

SUPPORT = Path(__file__).parents[1] / "support"
LIMIT_S = 90.0


@pytest.fixture
def head() -> Iterator[tuple[str, dict[str, str]]]:
    """A cluster of one node, which this process has not started as its child: its address, and its environment.

    It believes in two GPUs, which Ray only counts and hands out.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # Ray's sockets: a path of 107 characters at most
    token = folder / "token"
    token.write_text("0" * 64)
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    told = ["--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2", "--num-gpus=2"]
    told.append("--include-dashboard=false")
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *told, f"--temp-dir={folder / 'ray'}"]
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=LIMIT_S)
    yield f"127.0.0.1:{port}", environment
    servers = _of(folder)
    for process in [*servers, *(child for server in servers for child in server.children(recursive=True))]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def _of(folder: Path) -> list[psutil.Process]:
    """Return the processes of a cluster, by its folder in what they were started with."""
    return [one for one in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(one.info["cmdline"] or [])]


def start(folder: Path, options: str, environment: dict[str, str]) -> Process:
    return Process(str(SUPPORT / "driver.py"), str(folder), "ray", options, environment=environment)


def test_each_trial_sees_the_gpus_and_variables_it_asked_for(head: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    address, environment = head
    for share, expected in {1.0: ["0", "1"], 0.5: ["0", "0"], 0.0: ["None", "None"]}.items():
        options = {"outer": {"seconds": 0.05}, "settings": {"trials": 4}, "address": address, "concurrency": 2}
        folder = tmp_path / str(share)
        driver = start(folder, json.dumps({**options, "resources": {"gpus": share}}), environment)
        _, errors = driver.communicate(timeout=LIMIT_S)
        assert driver.returncode == 0, errors
        # without a GPU Ray leaves the variable unset; Ray 2.52 makes it empty
        seen = {(line["pid"], str(line["gpus"] or None)) for trial in range(4) for line in toy.truth(folder, trial)}
        assert sorted(gpus for _, gpus in seen) == expected, seen
    _sees_what_was_asked_for(address, environment)


VARIABLES = """
import os, sys
from metaloom.orchestrator.executors.ray_cluster import environment as ray_environment
ray_environment.prepare()
import ray
from metaloom.orchestrator.executors.ray_cluster.connection import connected
from metaloom.orchestrator.interruption import Interruption
os.environ.update(ASKED="yes", OTHER="no")
with connected(Interruption(), address=sys.argv[1], variables=("ASKED", "ABSENT")):
    seen = ray.get(ray.remote(lambda: dict(os.environ)).remote())
print([seen.get(name) for name in ("ASKED", "ABSENT", "OTHER")])
"""


def _sees_what_was_asked_for(address: str, environment: dict[str, str]) -> None:
    done = processes.run("-c", VARIABLES, address, environment=environment, check=True, timeout=LIMIT_S)
    assert done.stdout == "['yes', None, None]\n"


@pytest.mark.faults
def test_a_cluster_whose_head_has_died_ends_the_search(head: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    """Left to itself Ray ends the driver a minute later, without a word."""
    address, environment = head
    options = json.dumps({"outer": {"seconds": 0.2}, "settings": {"trials": 5}, "address": address})
    driver = start(tmp_path / "s", options, environment)
    deadline = time.monotonic() + LIMIT_S
    while not any(line["what"] == "step" for line in toy.truth(tmp_path / "s", 0)):
        assert time.monotonic() < deadline and driver.poll() is None, driver.communicate()
        time.sleep(0.05)
    folder = Path(environment["RAY_AUTH_TOKEN_PATH"]).parent
    next(one for one in _of(folder) if one.name() == "gcs_server").kill()
    _, errors = driver.communicate(timeout=LIMIT_S)
    assert driver.returncode == 3, errors
    assert f"the Ray cluster at {address} no longer answers" in errors and "Traceback" not in errors


SIGNALLED = """
import os, signal, time
from metaloom.orchestrator.executors.ray_cluster import environment as ray_environment
ray_environment.prepare()
from metaloom.orchestrator.executors.ray_cluster import connection as ray_connection
from metaloom.orchestrator.executors.ray_cluster.starting import Wanted
from metaloom.orchestrator.interruption import Interruption, Stopped

class Signalled(Wanted):
    def start(self):
        super().start()
        os.kill(os.getpid(), signal.SIGTERM)  # Ray's handler is in force: it sets an alarm, then calls ours
        time.sleep(10)

with Interruption().installed() as interruption, ray_environment.private():
    try:
        ray_connection._start_or_stop(interruption, Signalled(None, 1, 1, 1, ()), set())
    except Stopped:
        print("stopped", signal.alarm(0), flush=True)
        os._exit(0)
"""


def test_the_alarm_of_the_handler_that_ray_has_while_it_starts_is_stopped() -> None:
    done = processes.run("-c", SIGNALLED, timeout=LIMIT_S)
    assert "SIGTERM received" in done.stderr
    assert (done.stdout, done.returncode) == ("stopped 0\n", 0)
