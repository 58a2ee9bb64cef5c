"""The secure defaults, attacked by harmless means. SECURITY.md promises each, and names the tests that hold it.

Names and configuration are attacked in test_resume.py and tests/search_spaces/test_document.py, bundles in
tests/workers/test_hostile_bundles.py, passwords in test_secrets.py.
"""

import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from metaloom.orchestrator import security
from metaloom.orchestrator.command_line import cli, companions, local_server
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.executors import RunOptions
from metaloom.orchestrator.tracking import client
from tests.support.databases import copy_mlflow_database

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "tests" / "fixtures" / "stored_0_1" / "store"
SMALL = [
    *("--set", "outer.steps=20", "--set", "outer.validate_every=2", "--set", "outer.meta_batch=2"),
    *("--set", "outer.validation_episodes=4", "--set", "outer.test_episodes=6", "--set", "outer.strategy=loop"),
]


def listening(process: psutil.Process) -> dict[str, set[int]]:
    """Return the addresses at which a process and its children listen, with their ports."""
    found: dict[str, set[int]] = {}
    for one in [process, *process.children(recursive=True)]:
        try:
            connections = one.net_connections(kind="inet")
        except psutil.Error:  # it has ended meanwhile
            continue
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN:
                found.setdefault(connection.laddr.ip.removeprefix("::ffff:"), set()).add(connection.laddr.port)
    return found


def open_to_others(folder: Path) -> list[Path]:
    paths = [folder, *folder.rglob("*")]
    return [path for path in paths if not path.is_symlink() and stat.S_IMODE(path.lstat().st_mode) & 0o077]


@pytest.fixture(scope="module")
def searched() -> Iterator[dict[str, Any]]:
    """A search on Ray, looked at while it ran. Its path is short, so that Ray's sockets and logs are in it, too."""
    with tempfile.TemporaryDirectory(prefix="s", dir="/tmp") as folder:
        yield looked_at(Path(folder))


def looked_at(folder: Path) -> dict[str, Any]:
    (temporary := folder / "tmp").mkdir()
    command = ["-m", "metaloom.orchestrator.command_line.cli", "search", "quick", "--name", "one", "--trials", "2"]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    # a new interpreter reads TMPDIR
    long = ("--set", "outer.steps=600")  # some seconds, so that a trial still runs when its worker is killed
    line = [
        sys.executable,
        *command,
        *SMALL,
        *long,
        "--store",
        str(folder / "store"),
    ]
    pipe = subprocess.PIPE
    process = subprocess.Popen(line, env=environment, cwd=folder, text=True, stdout=pipe, stderr=pipe)
    heard: dict[str, set[int]] = {}
    killed = False
    temporaries: set[str] = set()
    while process.poll() is None:
        for address, ports in listening(psutil.Process(process.pid)).items():
            heard.setdefault(address, set()).update(ports)
        temporaries |= {path.name for path in temporary.iterdir()}
        killed = killed or kill_a_worker(process.pid, folder / "store")
        time.sleep(0.6)
    out, err = process.communicate()
    return {
        "folder": folder,
        "heard": heard,
        "killed": killed,
        "temporaries": temporaries,
        "code": process.wait(),
        "out": out,
        "err": err,
    }


def kill_a_worker(driver: int, store: Path) -> bool:
    """Kill a worker of Ray that has a trial with a report, as a lack of memory would."""
    journal = store / "searches" / "one" / "journal.db"
    if not journal.exists():
        return False
    connection = sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True)
    try:
        (count,) = connection.execute("SELECT count(*) FROM events WHERE kind = 'trial_reported'").fetchone()
    except sqlite3.Error:
        return False
    finally:
        connection.close()
    for child in psutil.Process(driver).children(recursive=True) if count else ():
        try:
            if "MetaloomTrial" in " ".join(child.cmdline()):
                child.kill()
                return True
        except psutil.Error:
            continue
    return False


def test_a_running_search_listens_on_this_machine_only(searched: dict[str, Any]) -> None:
    assert searched["code"] == 0, searched["err"]
    assert set(searched["heard"]) == {"127.0.0.1"}
    assert len(searched["heard"]["127.0.0.1"]) >= 3


def test_nothing_of_a_store_is_open_to_others(searched: dict[str, Any]) -> None:
    store = searched["folder"] / "store"
    assert len(list(store.rglob("*"))) > 20
    assert open_to_others(store) == []


def test_a_killed_worker_is_a_line_of_ours_without_colours(searched: dict[str, Any]) -> None:
    assert searched["killed"]
    text = searched["out"] + searched["err"]
    assert "its worker was lost" in text
    assert "raylet" not in text and "\x1b" not in text


def test_nothing_is_left_among_the_temporary_files(searched: dict[str, Any]) -> None:
    assert any(name.startswith("metaloom-") for name in searched["temporaries"])  # Ray's, while it ran
    assert list((searched["folder"] / "tmp").iterdir()) == []


def test_the_ui_answers_this_machine_only_and_no_other_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_mlflow_database(tmp_path / client.MLFLOW_DATABASE)
    monkeypatch.setenv("MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE", "true")  # the user's environment does not open it
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "true")
    port = local_server.free_port(None)

    def status(path: str, data: bytes | None = None, **headers: str) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    with local_server.running(companions.mlflow_command(tmp_path, port), port, env=client.FORCED_ON_SERVERS) as process:
        assert listening(psutil.Process(process.pid)) == {"127.0.0.1": {port}}
        wait_for(lambda: status("/health"))
        assert status("/") == 200
        assert status("/", Host="evil.example") == 403
        create, body = "/api/2.0/mlflow/experiments/create", b'{"name": "planted"}'
        kind = {"Content-Type": "application/json"}
        assert status(create, body, Origin="http://evil.example", **kind) == 403
        assert status(create, body, **kind) == 200
        environment = psutil.Process(process.pid).environ()
        assert {name: environment[name] for name in client.FORCED_ON_SERVERS} == client.FORCED_ON_SERVERS
        assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"


def wait_for(answer: Any) -> None:
    deadline = time.monotonic() + 60.0
    while True:
        try:
            return answer()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.mark.parametrize("mode", [None, "disabled"])
def test_a_cluster_without_a_token_is_refused(mode: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with pytest.raises(SearchError, match="without a token"):
        RunOptions("ray", "10.0.0.1:6379")
    RunOptions("ray", "10.0.0.1:6379", insecure_cluster=True)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    RunOptions("ray", "10.0.0.1:6379")


def test_control_characters_are_never_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "odd.yaml"
    for line in (r'name: "a\nb\e[31m"', r'"se\e[2Jed": 3', r'learner: "ma\e[31mml"', r'seed: "\e[1m"'):
        text = "tasks: sinusoid\nlearner: maml\n"
        file.write_text("".join(one for one in text.splitlines(True) if one.split(":")[0] != line.split(":")[0]) + line)
        assert cli.run(["search", str(file), "--store", str(tmp_path / "store"), "--json"]) == 2
        out, err = capfd.readouterr()
        assert "\x1b" not in out + err and r"\x1b[" in err
        assert len(err.splitlines()) == 1, err  # an end of a line in a value is an escape, too
    assert cli.run(["show", "a\x1b[31mb", "--store", str(tmp_path)]) == 2
    assert cli.run(["episodes", "\x9b2J\u202e", "--store", str(tmp_path)]) == 2
    assert not set("\x1b\x9b\u202e") & set(capfd.readouterr().err)


def test_what_is_in_a_journal_is_printed_without_control_characters(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = Path(shutil.copytree(STORED, tmp_path / "store"))
    journal = sqlite3.connect(store / "searches" / "finished" / "journal.db")
    with journal:
        rows = journal.execute("SELECT id, payload FROM events WHERE kind = 'trial_finished'").fetchall()
        payload = {**json.loads(rows[0][1]), "reason": "\x1b[31mred\x9b", "traceback": ""}
        journal.execute(
            "UPDATE events SET kind = 'trial_failed', payload = ? WHERE id = ?", (json.dumps(payload), rows[0][0])
        )
    journal.close()
    assert cli.run(["show", "finished", "--store", str(store)]) == 0
    shown = capfd.readouterr().out
    assert r"\x1b[31mred\x9b" in shown and "\x1b" not in shown


def test_the_table_shows_what_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def states() -> dict[str, security.SecurityFinding]:
        return {one.what: one for one in security.examine_security(tmp_path / "store", "told")}

    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    for name in security.UI_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    before = states()
    assert len(before) == 9
    assert before["files of the store"].state.endswith("(0700)") and not before["files of the store"].advice
    assert before["names"].state.startswith("5 of 5")

    store = Path(shutil.copytree(STORED, tmp_path / "store"))
    store.chmod(0o755)
    journal = sqlite3.connect(store / "searches" / "finished" / "journal.db")
    with journal:
        (text,) = journal.execute("SELECT payload FROM events WHERE id = 1").fetchone()
        created = json.loads(text)
        created["experiment"]["tracking"] = {"uri": "http://bob:PLANTED@host"}
        journal.execute("UPDATE events SET payload = ? WHERE id = 1", [json.dumps(created)])
    journal.close()
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", "*")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    after = states()
    assert "chmod -R go-rwx" in after["files of the store"].advice
    assert after["passwords and tokens"].advice == "change the password of http://bob:***@host"
    assert "MLFLOW_SERVER_ALLOWED_HOSTS" in after["the MLflow UI"].state
    assert "MLFLOW_DISABLE_TELEMETRY" in after["MLflow"].state
    assert "RAY_AUTH_MODE=token" in after["a Ray cluster"].state


def test_the_page_has_a_row_for_each_default() -> None:
    page = (ROOT / "SECURITY.md").read_text()
    for finding in security.examine_security(ROOT / "nowhere", None):
        assert re.search(rf"^\| {re.escape(finding.what)} \|", page, flags=re.M), finding.what
    for path in re.findall(r"`(tests/[\w/.]+)`", page):
        assert (ROOT / path).exists(), path
