"""Servers of a store's pages: our own, MLflow's UI and optuna-dashboard, each by the command that users run."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fastapi.routing import APIRoute
from starlette.responses import HTMLResponse

from benchmarks.page_browser import PLOT, ROWS
from metaloom.dashboards import queries
from metaloom.dashboards.pages.app import routers
from metaloom.orchestrator.command_line.companions import KINDS
from metaloom.orchestrator.command_line.local_server import running
from metaloom.workers.records import names as records

OPTUNA_LIST = r"""() => /\d Trials/.test(document.body.innerText) ? performance.now() : 0"""
# What is opened of each peer beside our page of the search, and when it is there.
PEER_PAGES = {
    "mlflow": {"table": ("", ROWS), "history": ("&compareRunsMode=CHART", PLOT)},
    "optuna": {"table": ("/trials", OPTUNA_LIST), "history": ("", PLOT)},
}


@dataclass(frozen=True)
class Served:
    """A running server: its address without a path, the address that lets a browser in, and its process."""

    address: str
    entry: str
    pid: int


@contextmanager
def pages(store: Path) -> Iterator[Served]:
    """Run ``metaloom ui --read-only`` on a store within this context."""
    command = [sys.executable, "-m", "metaloom", "ui", "--no-browser", "--json", "--read-only", "--store", str(store)]
    process = subprocess.Popen([*command, "--port", str(free_port())], stdout=subprocess.PIPE, text=True)
    try:
        text = ""
        while not text.endswith("}\n"):
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise SystemExit("benchmarks: 'metaloom ui' did not start")
            text += line
        found = json.loads(text)
        place = urlsplit(found["url"])
        yield Served(f"{place.scheme}://{place.netloc}", found["url"], found["pid"])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGINT)
        process.wait(60)


@contextmanager
def peer(kind: str, store: Path) -> Iterator[str]:
    """Run a companion of the pages within this context; give its address. SystemExit if it is not installed."""
    known, port = KINDS[kind], free_port()
    command = list(known.command(store, port))
    if kind == "optuna":
        command = [optuna_dashboard(), command[3], "--host", "127.0.0.1", "--port", str(port)]
    known.settle(store)
    with running(command, port, env=known.env):
        yield f"http://127.0.0.1:{port}"


def optuna_dashboard() -> str:
    """Return the program; SystemExit if it is not installed."""
    beside = Path(sys.executable).with_name("optuna-dashboard")
    found = str(beside) if beside.exists() else shutil.which("optuna-dashboard")
    if found is None:
        raise SystemExit("benchmarks: optuna-dashboard is missing; `make bench` brings the peers")
    return found


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def peer_page(kind: str, store: Path, name: str, part: str) -> tuple[str, str]:
    """Return the path of a peer's page of a search, and what says that it is there."""
    suffix, ready = PEER_PAGES[kind][part]
    return KINDS[kind].page(store, name, None) + suffix, ready


def our_pages(store: Path, name: str) -> Mapping[str, str]:
    """Return an address of every page of the application, by the path of its route."""
    values = _values(store, name)
    return {path: filled(path, values) + _query(path, store, name) for path in _paths()}


def filled(path: str, values: Mapping[str, str]) -> str:
    """Put values in the places of a path; KeyError for a place that none is known for."""
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda part: values[part[1]], path)


def _paths() -> Sequence[str]:
    """Return the paths of the routes that answer whole pages, but the one that waits for a companion."""
    found = [one for router in routers() for one in router.routes if isinstance(one, APIRoute)]
    asked = [one for one in found if "GET" in (one.methods or ()) and one.response_class is HTMLResponse]
    whole = {one.path for one in asked if "/parts/" not in one.path}
    return sorted(path for path in whole if not path.startswith("/companions"))


def _values(store: Path, name: str) -> Mapping[str, str]:
    """Return what stands in the places of paths: the best trial, and its last validation's first episode."""
    row = queries.listed_search(store, name)
    best = str(row.best or 0)
    step = queries.search_record(store, name).trials[int(best)].step
    shown = {"phase": records.VALIDATION, "step": str(step), "episode": "0", "kind": "mlflow"}
    return {"name": name, "number": best, "trial": best, **shown}


def _query(path: str, store: Path, name: str) -> str:
    """Return what a page needs behind its path."""
    if path != "/compare":
        return ""
    others = [one for one in records.search_names(store) if one != name]
    return f"?names={','.join([name, *others[:1]])}"
