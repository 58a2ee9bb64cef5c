"""A password that the user gives reaches MLflow's server, and nothing that is written or printed."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from metaloom.orchestrator.command_line import cli
from metaloom.orchestrator.credentials import keep, resolved, unencrypted
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.journal import Journal
from metaloom.orchestrator.resume import resume
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event
from tests.support.guarded_server import Door, guarded_server
from tests.support.processes import Process

SECRET = "Pl4nted%2Fs3cret"  # an address writes it so
SECRETS = (SECRET.encode(), b"Pl4nted/s3cret")
EXPERIMENT = """
tasks: {source: sinusoid, shots: 5, queries: 5}
learner:
  method: maml
  architecture: {kind: mlp, hidden: [4]}
  update: {rate: {search: {low: 0.001, high: 0.05, log: true}}, steps: 1}
outer: {steps: 4, meta_batch: 2, validate_every: 2, validation_episodes: 4, test_episodes: 6}
search: {trials: 2}
"""
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}


class Seen:
    """The files under some folders that held the secret at any time, looked at while a process runs."""

    def __init__(self, *folders: Path) -> None:
        self.folders, self.found, self.read = folders, set[Path](), set[str]()
        self._ended = threading.Event()

    def look(self) -> None:
        for folder in self.folders:
            for path in (Path(place) / name for place, _, names in os.walk(folder) for name in names):
                try:
                    content = path.read_bytes() if path.is_file() else b""
                except OSError:  # it is gone
                    continue
                self.read |= {path.name} if content else set()
                if any(secret in content for secret in SECRETS):
                    self.found.add(path)

    def __enter__(self) -> "Seen":
        def watch() -> None:
            while not self._ended.wait(1.0):
                self.look()

        self._thread = threading.Thread(target=watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.look()


def run(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = ["-m", "metaloom.orchestrator.command_line.cli", *arguments, "--store", str(folder / "store")]
    given = {**PLAIN, "TMPDIR": str(folder / "tmp"), **environment}
    if "inline" in arguments or arguments[0] != "search":
        process: Process | subprocess.Popen[str] = Process(*command, folder=folder, environment=given)
    else:  # a new interpreter, which reads TMPDIR
        line, pipe = [sys.executable, *command], subprocess.PIPE
        process = subprocess.Popen(line, cwd=folder, env=given, text=True, stdout=pipe, stderr=pipe)
    out, err = process.communicate(timeout=240)
    assert not any(secret.decode() in out + err for secret in SECRETS), out + err
    return subprocess.CompletedProcess(arguments, process.wait(), out, err)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder whose path is short, so that Ray's sockets and logs are in it, too."""
    with tempfile.TemporaryDirectory(prefix="s", dir="/tmp") as made:
        (Path(made) / "tmp").mkdir()
        (Path(made) / "experiment.yaml").write_text(EXPERIMENT)
        yield Path(made)


@pytest.fixture(scope="module")
def door(folder: Path) -> Iterator[Door]:
    with guarded_server(folder / "server", f"bob:{SECRETS[1].decode()}") as opened:
        yield opened


@pytest.mark.timeout(600)  # a server, a Ray, and three commands
def test_a_search_on_ray_writes_the_password_nowhere(folder: Path, door: Door) -> None:
    """The server refuses the first calls, and so the whole search; ``sync`` finds the password again, and sends."""
    uri, door.refusing = f"http://bob:{SECRET}@127.0.0.1:{door.port}", 1_000_000
    with Seen(folder / "store", folder / "server", folder / "tmp") as seen:
        began = run(folder, "search", "experiment.yaml", "--name", "one", "--json", "--set", f"tracking.uri={uri}")
        assert began.returncode == 0, began.stderr
        assert "mlflow cannot be written" in began.stderr and "401" in began.stderr
        assert door.refused > 0 and door.admitted == 0
        door.refusing = 0
        sent = run(folder, "sync", "one", "--json")
        assert (sent.returncode, json.loads(sent.stdout)["left"]) == (0, {}), sent.stderr
        assert door.admitted > 0
        shown = run(folder, "show", "one", "--json")
    assert {records.JOURNAL_FILE, "optuna.db", "server.db", "experiment_resolved.json"} <= seen.read
    assert any(name.startswith("python-core-driver") for name in seen.read), seen.read  # Ray's session
    assert seen.found == {folder / "store" / records.CREDENTIALS_FILE}
    assert (folder / "store" / records.CREDENTIALS_FILE).stat().st_mode & 0o777 == 0o600
    assert json.loads(shown.stdout)["tracking_uri"] == f"http://bob:***@127.0.0.1:{door.port}"
    text = (folder / "store" / "searches" / "one" / records.EXPERIMENT_FILE).read_text()
    assert f"# --set tracking.uri=http://bob:***@127.0.0.1:{door.port}" in text


def test_without_the_file_it_is_missed_by_name_and_found_elsewhere(folder: Path, door: Door) -> None:
    (folder / "store" / records.CREDENTIALS_FILE).unlink()
    missed = run(folder, "sync", "one")
    assert missed.returncode == 2
    assert "tracking.uri: the password of http://bob:***@" in missed.stderr and "credentials" in missed.stderr
    password = SECRETS[1].decode()
    before = door.admitted
    assert run(folder, "sync", "one", MLFLOW_TRACKING_USERNAME="bob", MLFLOW_TRACKING_PASSWORD=password).returncode == 0
    netrc = folder / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login bob password {password}\n")
    netrc.chmod(0o600)
    assert run(folder, "sync", "one", NETRC=str(netrc)).returncode == 0
    assert door.admitted >= before


def test_a_variable_is_recorded_by_its_name(folder: Path, door: Door) -> None:
    uri = "http://bob:${TRACKING_SECRET}@127.0.0.1:" + str(door.port)
    (folder / "named.yaml").write_text(EXPERIMENT + f"tracking: {{uri: '{uri}'}}\n")
    command = ["search", "named.yaml", "--name", "named", "--trials", "1", "--executor", "inline"]
    missed = run(folder, *command)
    assert missed.returncode == 2 and "the environment variable TRACKING_SECRET is not set" in missed.stderr
    assert not (folder / "store" / "searches" / "named").exists()
    before = door.admitted
    with Seen(folder / "store", folder / "server", folder / "tmp") as seen:
        done = run(folder, *command, TRACKING_SECRET=SECRETS[1].decode())
    assert (done.returncode, door.admitted > before) == (0, True), done.stderr
    assert seen.found == set()
    assert uri in (folder / "store" / "searches" / "named" / records.EXPERIMENT_FILE).read_text()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("tracking.artifacts=ftp://bob:PLANTED@host/runs", "tracking.artifacts: holds a password"),
        ("tasks.path=https://host/a.csv?token=PLANTED", "tasks.path: holds a password"),
        ("tracking.uri=[http://bob:PLANTED@host]", "tracking.uri"),
        ("tracking.password=PLANTED", "tracking.password"),
        ("http://bob:PLANTED@host", "PATH=VALUE"),
        ("learner.method=bob:PLANTED@host", "learner.method"),
    ],
)
def test_a_password_elsewhere_is_refused_and_not_shown(
    change: str, field: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["search", "default", "--set", change, "--store", str(tmp_path / "store"), "--json"]) == 2
    out, err = capfd.readouterr()
    assert field in err and "PLANTED" not in out + err
    assert not (tmp_path / "store").exists()


def test_a_password_of_an_address_of_ray_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["search", "default", "--address", "bob:PLANTED@host:6379", "--store", str(tmp_path / "store")]) == 2
    assert "RAY_AUTH_TOKEN" in (told := capfd.readouterr().err) and "PLANTED" not in told


def test_an_old_journal_that_holds_a_password_is_told_and_not_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Versions 0.1 and 0.2 wrote the address as it was given, in the journal and in the store's experiment file."""
    stored = Path(__file__).resolve().parents[1] / "fixtures" / "stored_0_1"
    store = Path(shutil.copytree(stored / "store", tmp_path / "store"))
    folder, uri = store / "searches" / "interrupted", f"sqlite:///{tmp_path}/own.db?token=PLANTED"
    (folder / records.EXPERIMENT_FILE).write_text(f"# --set tracking.uri={uri}\n")
    with sqlite3.connect(folder / records.JOURNAL_FILE) as journal:
        (text,) = journal.execute("SELECT payload FROM events WHERE id = 1").fetchone()
        created = json.loads(text)
        created["experiment"]["tracking"] = {"uri": uri}
        journal.execute("UPDATE events SET payload = ? WHERE id = 1", [json.dumps(created)])
    journal.close()
    with Journal(folder, read_only=True) as reading:
        assert "PLANTED" not in json.dumps(reading.events(0, 1)[0].payload)
    ended = resume("interrupted", store)
    assert any("change the password" in note for note in ended.notes)
    assert "PLANTED" not in (folder / records.EXPERIMENT_FILE).read_text()
    assert resolved(store, uri.replace("PLANTED", "***")) == uri
    assert cli.run(["show", "interrupted", "--store", str(store), "--json"]) == 0
    out, err = capfd.readouterr()
    assert "PLANTED" not in out + err


def test_what_is_appended_holds_no_password(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        text = 'Traceback ...\n  File "x"\nConnectionError: http://bob:PLANTED@host/api?key=PLANTED refused'
        (event,) = journal.append_all([Event(0, 1.0, 3, records.TRIAL_FAILED, {"traceback": text})])
    assert "http://bob:***@host/api?key=***" in event.payload["traceback"]
    assert all(b"PLANTED" not in path.read_bytes() for path in tmp_path.iterdir())


def test_two_searches_at_once_keep_both_passwords(tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=keep, args=(tmp_path, f"http://u:p{number}@host{number}")) for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [resolved(tmp_path, f"http://u:***@host{number}") for number in range(8)] == [
        f"http://u:p{number}@host{number}" for number in range(8)
    ]
    assert (tmp_path / records.CREDENTIALS_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["{", "[]", '{"http://u:***@h": 3}'])
def test_a_file_of_passwords_that_cannot_be_read_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / records.CREDENTIALS_FILE).write_text(text)
    with pytest.raises(SearchError, match=r"credentials: .* correct or remove it"):
        resolved(tmp_path, "http://u:***@h")


def test_a_variable_is_quoted_unless_it_is_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "p/w@1")
    monkeypatch.setenv("ALL", "http://u:pw%401@h")
    assert resolved(tmp_path, "http://u:${ONE}@h/${ONE}") == "http://u:p%2Fw%401@h/p%2Fw%401"
    assert resolved(tmp_path, "${ALL}") == "http://u:pw%401@h"


def test_a_password_that_would_cross_a_network_in_the_open_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert unencrypted("http://bob:PLANTED@host:5000").startswith("http://bob:***@host:5000 is not encrypted")
    for uri in (
        "https://bob:pw@host",
        "http://bob:pw@127.0.0.1:1",
        "http://bob:pw@localhost",
        "http://host",
        "sqlite:///x",
    ):
        assert unencrypted(uri) == ""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t")
    assert "https://" in unencrypted("http://host")
