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
    from metaloom.dashboards import queries
    from metaloom.orchestrator.command_line import tables
    from metaloom.orchestrator.tracking import client as tracking_client
    from metaloom.orchestrator.tracking import columns, projection


def ui(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A search: open its runs, with its objective and knobs.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="By default a free one.")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in the browser.")] = True,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Open the MLflow UI on a store, on 127.0.0.1; Ctrl-C ends it.

    With the name of a search it opens at the search's runs, whose columns are its objectives, their interval and the
    searched knobs.
    """
    with answering(as_json) as answer:
        page = "" if name is None else runs_page(store, name)
        chosen = free_port(port)
        screen = tables.console(sys.stderr)
        screen.print(f"starting the MLflow UI on {store} ...", markup=False)
        if told := projection.own_database(store).settle():
            screen.print(told, markup=False)
        with served(store, chosen) as process:
            url = f"http://{HOST}:{chosen}{page}"
            message = f"{url} shows {name or store}; Ctrl-C ends it"
            answer.give({"url": url, "pid": process.pid}, lambda screen: screen.print(message, markup=False))
            if browser:
                webbrowser.open(url)
            wait(process, "metaloom ui")


def runs_page(store: Path, name: str) -> str:
    """Return the page of a search's runs in MLflow, to be put after the server's address.

    Raises:
        BadInput: There is no such search, or the store's own MLflow does not have it.
    """
    summary, search = queries.search_summary(store, name), queries.search_record(store, name)
    elsewhere = ((search.created.get("experiment") or {}).get("tracking") or {}).get("uri")
    if elsewhere or summary["experiment_id"] is None:
        where = f"its runs are at {elsewhere}" if elsewhere else "send it by 'metaloom sync'"
        raise BadInput(f"the store's own MLflow does not have search '{name}': {where}")
    key = columns.view_key(projection.id_of(Path(name), search.former_names, search.created_at or 0.0))
    return f"/#/experiments/{summary['experiment_id']}/runs?viewStateShareKey={key}"


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


COMMAND = Command(ui, examples=("metaloom ui first", "metaloom ui --port 5001 --no-browser"))
