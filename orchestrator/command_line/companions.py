"""The programs beside our pages: MLflow's UI and optuna-dashboard, started on demand, ended with the pages.

Each listens on 127.0.0.1 only. They have no token: whatever runs on this machine can open them while they run.
"""

import sqlite3
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from metaloom.dashboards import queries
from metaloom.dashboards.pages.services import CompanionState
from metaloom.learners.errors import BadInput, MetaloomError, unknown
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.local_server import HOST, kernel_port, running
from metaloom.orchestrator.store import Store
from metaloom.orchestrator.tracking import client as tracking_client
from metaloom.orchestrator.tracking.databases import sqlite_uri
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import read_mark

with deferred():  # they import torch, which the pages do without until MLflow is opened
    from metaloom.orchestrator.tracking import columns, projection

DASHBOARD = "import sys; from optuna_dashboard import run_server; run_server(*sys.argv[1:3], port=int(sys.argv[3]))"


@dataclass(frozen=True)
class CompanionKind:
    """A program that can be started.

    Attributes:
        title: Its name for people.
        package: What has to be installed for it.
        install: The command that installs it.
        command: Returns its command line for a store and a port.
        page: Returns the page of a search or a trial, to be put after its address.
        env: Variables of its process.
        settle: Called before the start; returns what the user has to know, or None.
        caution: As that of its ``CompanionState``.
    """

    title: str
    package: str
    install: str
    command: Callable[[Path, int], Sequence[str]]
    page: Callable[[Path, str, int | None], str]
    env: Mapping[str, str] = field(default_factory=dict)
    settle: Callable[[Path], object] = lambda store: None
    caution: str = ""


def mlflow_command(store: Path, port: int) -> Sequence[str]:
    """Return the command line of MLflow's server on a store."""
    place = store.absolute()
    return [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", HOST, "--port", str(port)),
        *("--backend-store-uri", tracking_client.tracking_uri(place, None)),
        *("--default-artifact-root", (place / tracking_client.MLFLOW_ARTIFACTS).as_uri()),
    ]


def runs_page(store: Path, name: str, trial: int | None = None) -> str:
    """Return the page of a search's runs in MLflow, or of a trial's run, to be put after the server's address.

    Raises:
        BadInput: There is no such search or trial, or the store's own MLflow does not have it.
    """
    search = queries.search_record(store, name)
    tracked = read_mark(queries.search_folder(store, name) / records.JOURNAL_FILE, records.MLFLOW_MARK)
    elsewhere = ((search.created.get("experiment") or {}).get("tracking") or {}).get("uri")
    where = f"its runs are at {elsewhere}" if elsewhere else "send it by 'metaloom sync'"
    experiment = tracked.get("experiment_id")
    if elsewhere or experiment is None:
        raise BadInput(f"the store's own MLflow does not have search '{name}': {where}")
    if trial is None:
        key = columns.view_key(projection.id_of(Path(name), search.former_names, search.created_at or 0.0))
        return f"/#/experiments/{experiment}/runs?viewStateShareKey={key}"
    run = tracked.get("runs", {}).get(str(trial))
    if run is None:
        raise BadInput(f"the store's own MLflow does not have trial {trial} of search '{name}': {where}")
    return f"/#/experiments/{experiment}/runs/{run}"


def dashboard_command(store: Path, port: int) -> Sequence[str]:
    """Return the command line of optuna-dashboard on a store."""
    return [sys.executable, "-c", DASHBOARD, sqlite_uri(Store(store).optuna_database), HOST, str(port)]


def study_page(store: Path, name: str, trial: int | None = None) -> str:
    """Return the page of a search's study in optuna-dashboard, or of a trial in it.

    Raises:
        BadInput: There is no such search, or Optuna's database does not have it.
    """
    queries.search_folder(store, name)
    database = Store(store).optuna_database
    if not database.is_file():
        raise BadInput(f"the store has no database of Optuna yet: {database} is written while a search runs")
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as opened:
        row = opened.execute("SELECT study_id FROM studies WHERE study_name = ?", (name,)).fetchone()
    if row is None:
        raise BadInput(f"Optuna's database does not have search '{name}': send it by 'metaloom sync'")
    study = f"/dashboard/studies/{int(row[0])}"
    return study if trial is None else f"{study}/trials?numbers={trial}"


KINDS = {
    "mlflow": CompanionKind(
        title="MLflow",
        package="mlflow",
        install="pip install mlflow",
        command=mlflow_command,
        page=runs_page,
        env=tracking_client.FORCED_ON_SERVERS,
        settle=lambda store: projection.own_database(store).settle(),
    ),
    "optuna": CompanionKind(
        title="optuna-dashboard",
        package="optuna_dashboard",
        install="pip install optuna-dashboard",
        command=dashboard_command,
        page=study_page,
        caution=", and so can any site that your browser shows",
    ),
}


class LocalCompanions:
    """Starts each program once, in a thread of its own; ``close`` ends them all.

    Args:
        store: The folder of all records.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._running: dict[str, _Running] = {}

    def states(self) -> tuple[CompanionState, ...]:
        """Return what there is, in a fixed order."""
        return tuple(map(self.state, KINDS))

    def state(self, kind: str) -> CompanionState:
        """Return the state of one; raises QueryError for an unknown kind."""
        if kind not in KINDS:
            raise queries.QueryError(unknown("companion", kind, KINDS))
        known = KINDS[kind]
        if find_spec(known.package) is None:
            return CompanionState(kind, known.title, "missing", known.install)
        found = self._running.get(kind)
        if found is None:
            return CompanionState(kind, known.title, "off", caution=known.caution)
        state, message = found.state()
        return CompanionState(kind, known.title, state, message, found.url, known.caution)

    def start(self, kind: str) -> CompanionState:
        """Start one in the background, or return the running one; raises QueryError for an unknown kind."""
        with self._lock:
            if self.state(kind).state in ("off", "failed"):
                self._running[kind] = _Running(KINDS[kind], self._store)
        return self.state(kind)

    def address(self, kind: str, name: str | None = None, trial: int | None = None) -> str:
        """Return the address of a search's or a trial's page; raises BadInput if it has none."""
        found = self.state(kind)
        return found.url + ("" if name is None else KINDS[kind].page(self._store, name, trial))

    def close(self) -> None:
        """End them all."""
        for one in self._running.values():
            one.close()


class _Running:
    """A program that is started by a thread, and ended by ``close``."""

    def __init__(self, kind: CompanionKind, store: Path) -> None:
        self.url, self._message = "", ""
        self._kind, self._store, self._closed = kind, store, threading.Event()
        self._started = threading.Event()
        self._code: Callable[[], int | None] = lambda: None
        self._thread = threading.Thread(target=self._run, name=f"start of {kind.title}")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._kind.settle(self._store)
            port = kernel_port()
            with running(self._kind.command(self._store, port), port, env=self._kind.env) as process:
                self.url, self._code = f"http://{HOST}:{port}", process.poll
                self._started.set()
                self._closed.wait()
        except MetaloomError as problem:
            self._message = str(problem)
        except (OSError, sqlite3.Error) as problem:  # of the database that is looked at before the start
            self._message = f"{type(problem).__name__}: {problem}"

    def state(self) -> tuple[str, str]:
        """Return its state, and why it failed."""
        if self._message:
            return "failed", self._message
        if not self._started.is_set():
            return "starting", ""
        code = self._code()
        if code is None:
            return "running", ""
        self._closed.set()
        return "failed", f"it has ended by itself (exit code {code})"

    def close(self) -> None:
        """End it."""
        self._closed.set()
        self._thread.join()
