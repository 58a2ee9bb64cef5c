"""Drives a search as its user does, by commands in processes of their own, and waits for instants in it."""

import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from metaloom.workers.records import names
from metaloom.workers.records.journal_sources import read_journal
from tests.support.processes import OWN_TABLES, PRELOADED, Process

EXPERIMENT = Path(__file__).with_name("reference.yaml")
LIMIT_S = 240.0
WORKER, IDLE = "ray::MetaloomTrial", "ray::IDLE"
SERVERS = ("gcs_server", "raylet")


@dataclass
class Place:
    """A search in a store, and the experiment that it began with."""

    store: Path
    name: str = "reference"
    overrides: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Its folder."""
        return self.store / names.SEARCHES_FOLDER / self.name

    @property
    def journal(self) -> Path:
        """Its journal."""
        return self.folder / names.JOURNAL_FILE

    def start(self, verb: str, *options: str, before: str = "") -> Process:
        """Start ``metaloom VERB`` for this search; ``before`` is code that runs first in the process."""
        target = str(EXPERIMENT) if verb == "search" else self.name
        settings = [f"--set={one}" for one in self.overrides] if verb == "search" else []
        named = ["--name", self.name] if verb == "search" else []
        arguments = [verb, target, *named, *settings, "--store", str(self.store), *options]
        code = f"{before}\nimport sys\nfrom metaloom.__main__ import main\nsys.exit(main())"
        environment = {**_own_environment(), **self.environment}
        return Process("-c", code, *arguments, folder=self.store.parent, environment=environment, new_session=True)

    @property
    def verb(self) -> str:
        """The command that goes on: ``search`` if nothing is recorded yet."""
        return "resume" if read_journal(self.folder).rows else "search"

    def run(self, verb: str, *options: str, limit_s: float = LIMIT_S) -> tuple[int, str, str]:
        """Run ``metaloom VERB`` to its end; return its exit code and what it printed."""
        process = self.start(verb, *options)
        out, errors = process.communicate(timeout=limit_s)
        return process.returncode or 0, out, errors

    def count(self, kind: str = names.TRIAL_REPORTED) -> int:
        """Count the journal's events of a kind; 0 where it cannot be read yet."""
        try:
            with closing(sqlite3.connect(f"{self.journal.as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
                query = f"SELECT count(*) FROM {names.EVENTS_TABLE} WHERE kind = ?"
                return int(connection.execute(query, (kind,)).fetchone()[0])
        except sqlite3.Error:
            return 0


def _own_environment() -> dict[str, str]:
    """Return the environment of a user's process: what tests otherwise spare is done."""
    usual = {name: value for name, value in os.environ.items() if name not in ("METALOOM_STORE", PRELOADED)}
    return usual | OWN_TABLES


def wait_until(condition: Callable[[], bool], process: Process, *, limit_s: float = LIMIT_S) -> bool:
    """Wait for a condition; return False if the process has ended before."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if process.poll() is not None:
            return condition()
        assert time.monotonic() < deadline, "the instant of the fault has not come"
        time.sleep(0.005)
    return True


def family(process: Process) -> list[psutil.Process]:
    """Return the processes that a driver has started, with those that these have started."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def workers(process: Process) -> list[psutil.Process]:
    """Return the Ray workers that host trials."""
    return [one for one in family(process) if _title(one).startswith(WORKER)]


def idle_workers(process: Process) -> set[int]:
    """Return the numbers of the Ray workers that have started and have no work."""
    return {one.pid for one in family(process) if _title(one).startswith(IDLE)}


def server(process: Process, name: str) -> psutil.Process | None:
    """Return one of Ray's servers, if it runs."""
    return next((one for one in family(process) if _name(one) == name), None)


def left_of(processes: list[psutil.Process], *, limit_s: float = 10.0) -> list[str]:
    """Wait for processes to end; return the command lines of those that live after the limit."""
    _, alive = psutil.wait_procs(processes, timeout=limit_s)
    return [f"{one.pid} {_title(one)}" for one in alive if one.is_running() and _status(one) != psutil.STATUS_ZOMBIE]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:80]
    except psutil.Error:
        return ""


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


def _status(process: psutil.Process) -> str:
    try:
        return process.status()
    except psutil.Error:
        return psutil.STATUS_ZOMBIE
