"""Ray's session folders: private, and gone with their process, however it ended."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from metaloom.orchestrator.executors.ray_cluster import environment as ray_environment
from metaloom.orchestrator.executors.ray_cluster import worker_start
from tests.support import processes

OWNER = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from metaloom.orchestrator.executors.ray_cluster import environment as ray_environment
print(ray_environment.private_folder(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def parent() -> Iterator[Path]:
    """A folder whose path is as short as Ray's sockets need."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def owner(parent: Path) -> tuple["subprocess.Popen[str]", Path]:
    """Start a process that has a private folder, and wait until it has."""
    command = [sys.executable, "-c", OWNER, str(parent)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_folder_of_a_killed_process_is_removed_by_the_next(parent: Path) -> None:
    killed, abandoned = owner(parent)
    assert abandoned.parent == parent
    (abandoned / "ray").mkdir()
    (abandoned / "ray" / "session").write_text("left behind")
    foreign = parent / f"{ray_environment.FOLDER_PREFIX}notes"  # somebody's own, by chance of that name
    foreign.mkdir()
    (parent / f"{ray_environment.FOLDER_PREFIX}link").symlink_to(foreign)
    ray_environment.remove_abandoned(parent)
    assert abandoned.is_dir()  # its process lives
    killed.kill()
    killed.wait()
    living, folder = owner(parent)
    try:
        assert not abandoned.exists()
        assert sorted(one.name for one in parent.iterdir()) == sorted(["metaloom-link", "metaloom-notes", folder.name])
    finally:
        assert living.stdin is not None
        living.stdin.close()  # ends it as it should end
    assert living.wait(30) == 0
    assert not folder.exists()


def test_an_address_at_which_nobody_listens_is_said_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        code = f"""
from metaloom.orchestrator.executors.ray_cluster import environment as ray_environment
ray_environment.prepare()
from metaloom.orchestrator.executors.ray_cluster.connection import connected
from metaloom.orchestrator.interruption import Interruption
with connected(Interruption(), address={address!r}):
    pass
"""
        started = time.monotonic()
        done = processes.run("-c", code, timeout=120)
    assert done.returncode == 1 and time.monotonic() - started < 60
    assert f"cannot reach a Ray cluster at {address}" in done.stderr and "Connection refused" in done.stderr


def test_a_ray_that_the_caller_imported_or_starts_itself_is_no_trouble() -> None:
    """Ray looks at its environment when it is imported: here twice before ours, and once between."""
    code = """
import os
import ray
before = dict(os.environ)
import psutil
from metaloom.orchestrator.executors.ray_cluster import environment as ray_environment
ray_environment.prepare()
from metaloom.orchestrator.executors.ray_cluster.connection import connected
from metaloom.orchestrator.interruption import Interruption

def answers():
    return ray.get(ray.remote(lambda: 42).remote()) == 42

tokens = []
for _ in range(2):
    with connected(Interruption(), cpus=1):
        assert answers()
        servers = psutil.Process().children(recursive=True)
        ports = [one for server in servers for one in server.net_connections(kind="tcp") if one.status == "LISTEN"]
        assert ports and all("127.0.0.1" in one.laddr.ip for one in ports), ports
        tokens.append((os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN_PATH"]))
assert tokens == [("token", str(ray_environment.private_folder() / ray_environment.TOKEN_FILE))] * 2, tokens
assert {name: os.environ.get(name) for name in before} == before
assert not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"} & set(os.environ), "a cluster joined next would be given our token"
os.environ["RAY_AUTH_MODE"] = "disabled"
ray.init(num_cpus=1, include_dashboard=False)
assert answers()
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240, env=environment)


def test_workers_get_the_usual_variables_and_those_that_are_asked_for() -> None:
    usual = {"PATH", "LC_ALL", "CUDA_HOME", "RAY_AUTH_TOKEN", "OMP_NUM_THREADS"}
    secret = ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "NVIDIA_API_KEY", "TORCH_TOKEN", "HTTPS_PROXY")
    given = dict.fromkeys((*usual, *secret, "MY_DATA", ray_environment.MARK), "given")
    assert set(ray_environment.worker_environment(given)) == usual
    asked = ("MY_DATA", "TORCH_TOKEN", "ABSENT")
    assert set(ray_environment.worker_environment(given, asked)) == usual | {"MY_DATA", "TORCH_TOKEN"}


def test_a_worker_finds_installed_packages_before_what_is_in_the_current_folder(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(parent)
    monkeypatch.setattr(sys, "argv", [str(parent / "scripts" / "search.py")])
    here, scripts = worker_start.driver_folders()
    assert (here, scripts) == (str(Path.cwd()), str(Path.cwd() / "scripts"))
    for given, expected in {
        (here, scripts, "site"): ["site", here, scripts],  # as Ray makes it
        (here, here, "site"): [here, "site", here],  # PYTHONPATH names it too
        ("site", here): ["site", here],
    }.items():
        monkeypatch.setattr(sys, "path", list(given))
        worker_start.put_last((here, scripts))
        assert sys.path == expected


def test_a_spare_worker_needs_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker_start.with_spares(2) == 3
    monkeypatch.setattr(worker_start, "EACH_BYTES", 2**60)
    assert worker_start.with_spares(2) == 2


def test_the_page_lists_the_usual_variables() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    lines = page.partition("stands for all that begin so):")[2].partition("Of these")[0]
    assert re.findall("`(.+?)`", lines) == list(ray_environment.PASSED)


def test_what_the_user_has_set_of_tokens_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with ray_environment.private():
        assert "RAY_AUTH_TOKEN_PATH" not in os.environ and os.environ["RAY_AUTH_TOKEN"] == "0" * 64
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    with ray_environment.private():
        assert "RAY_AUTH_TOKEN_PATH" not in os.environ and os.environ["RAY_AUTH_MODE"] == "disabled"
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


def test_a_process_that_the_user_started_meanwhile_outlives_ray() -> None:
    code = """
import subprocess, sys
from metaloom.orchestrator.executors.ray_cluster import environment as ray_environment
ray_environment.prepare()
from metaloom.orchestrator.executors.ray_cluster.connection import connected
from metaloom.orchestrator.interruption import Interruption
with connected(Interruption(), cpus=1):
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
assert child.poll() is None
child.communicate()
assert child.returncode == 0, child.returncode
"""
    processes.run("-c", code, check=True, timeout=120)


def test_after_a_signal_to_end_a_process_is_refused_a_second_ray_at_once() -> None:
    code = """
import signal, sys, time
from metaloom.orchestrator.executors.ray_cluster import environment as ray_environment
ray_environment.prepare()
from metaloom.orchestrator.executors.ray_cluster.connection import connected
from metaloom.orchestrator.interruption import Interruption
for _ in range(2):  # one Ray after another is no trouble
    told = Interruption()
    with connected(told, cpus=1):
        pass
with connected(told, cpus=1):
    told.signal_number = signal.SIGTERM
started = time.monotonic()
try:
    with connected(Interruption(), cpus=1):
        pass
except Exception as error:
    print(type(error).__name__, error, round(time.monotonic() - started))
"""
    done = processes.run("-c", code)
    assert done.stdout.startswith("ClusterError this process was told to end (SIGTERM)"), done.stderr
    assert done.stdout.split()[-1] == "0" and done.returncode == 143


def test_no_handle_of_an_actor_is_left_for_a_collection_while_ray_shuts_down() -> None:
    """One collected at the wrong moment ends the process with exit code 1."""
    code = """
import gc
from metaloom.orchestrator.executors.ray_cluster import environment as ray_environment
ray_environment.prepare()
import ray
from metaloom.orchestrator.executors.ray_cluster.connection import connected
from metaloom.orchestrator.interruption import Interruption

class Counter:
    def count(self):
        return 1

gc.disable()
with connected(Interruption(), cpus=1):
    for _ in range(2):
        cycle = [ray.remote(Counter).options(num_cpus=0).remote()]
        assert ray.get(cycle[0].count.remote()) == 1
        cycle.append(cycle)
    del cycle
assert not [one for one in gc.get_objects() if type(one).__name__ == "ActorHandle"]
gc.enable()
"""
    processes.run("-c", code, check=True, timeout=120)
