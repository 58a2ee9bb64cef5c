"""``metaloom ui``: serves the pages of a store, on this machine only if not told otherwise, until Ctrl-C."""

import os
import sys
import threading
import webbrowser
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlencode

import typer

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.command_line.answers import JsonOption, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

if TYPE_CHECKING:
    from metaloom.dashboards.pages.settings import PageSettings

with deferred():
    from metaloom.dashboards import queries
    from metaloom.orchestrator import interruption
    from metaloom.orchestrator.command_line import local_server, pages_server, tables

HOST = "127.0.0.1"
UNENCRYPTED = "the pages are sent over plain HTTP, which is not encrypted: others on the network can read them"


def ui(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A search: open its page.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="By default a free one.")] = None,
    host: Annotated[
        str, typer.Option("--host", help="Another address of this machine; its pages are read-only by default.")
    ] = HOST,
    read_only: Annotated[
        bool | None, typer.Option("--read-only/--read-write", help="Change nothing from the pages.")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in the browser.")] = True,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Open the pages of a store in the browser: searches, trials, episodes, what was learned; Ctrl-C ends it.

    The printed address holds a secret: without it, or the cookie that a browser gets for it, the pages are refused.
    MLflow's UI and optuna-dashboard start from the pages. See docs/dashboards.md.
    """
    with answering(as_json) as answer:
        page = start_page(store, name)
        screen = tables.console(sys.stderr)
        with (
            local_server.bound_socket(host, port) as bound,
            interruption.handled(_leave),
            pages_server.serving(store, bound, host=host, read_only=read_only) as settings,
        ):
            url = entry_address(settings, host, page, settings.entry)
            if not pages_server.is_loopback(bound.getsockname()[0]):
                screen.print(UNENCRYPTED, markup=False)
            message = f"{url}\nshows {name or store}{' (read-only)' if settings.read_only else ''}; Ctrl-C ends it"
            document = {"url": url, "pid": os.getpid(), "read_only": settings.read_only}
            answer.give(document, lambda screen: screen.print(message, markup=False, soft_wrap=True))
            if browser:
                webbrowser.open(entry_address(settings, host, page, settings.handover))
            threading.Event().wait()


def start_page(store: Path, name: str | None) -> str:
    """Return the path of a search's page, or of the list; raises BadInput if there is no such store or search."""
    if not store.is_dir():
        raise BadInput(f"there is no store {store}: run a search first, or name another one with --store")
    if name is None:
        return "/"
    queries.search_folder(store, name)
    return f"/searches/{name}"


def entry_address(settings: "PageSettings", host: str, page: str, secret: str) -> str:
    """Return the address that lets a browser in."""
    return f"{pages_server.address(host, settings.port)}{page}?{urlencode({'entry': secret})}"


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


COMMAND = Command(ui, examples=("metaloom ui first", "metaloom ui --port 5001 --no-browser"))
