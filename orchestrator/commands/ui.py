"""``metaloom ui``: serves the MLflow UI on a store, on this machine only, until Ctrl-C."""

import subprocess
import sys
import webbrowser
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.command_line.answers import JsonOption, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.local_server import HOST, free_port, running, wait
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.orchestrator.command_line import tables
    from metaloom.orchestrator.tracking import client as tracking_client
    from metaloom.orchestrator.tracking import projection


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
            wait(process, "metaloom ui")


def served(store: Path, port: int) -> "AbstractContextManager[subprocess.Popen[bytes]]":
    """Serve the UI within the context; raises BadInput if there is no such store, and what ``running`` raises."""
    if not store.is_dir():
        raise BadInput(f"there is no store {store}: run a search first, or name another one with --store")
    place, client = store.absolute(), tracking_client
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", HOST, "--port", str(port)),
        *("--backend-store-uri", client.tracking_uri(place, None)),
        *("--default-artifact-root", (place / client.MLFLOW_ARTIFACTS).as_uri()),
    ]
    return running(command, port, env=client.FORCED_ON_SERVERS)


COMMAND = Command(ui, examples=("metaloom ui --port 5001 --no-browser",))
