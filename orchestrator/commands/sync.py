"""``metaloom sync``: sends MLflow the events that it missed while a search ran."""

import sys

from metaloom.orchestrator.command_line.answers import JsonOption, NameArgument, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.orchestrator.command_line import tables
    from metaloom.orchestrator.tracking import projection


def sync(name: NameArgument, store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> int:
    """Send MLflow the events that it missed while a search ran. Exits with code 1 if some are left."""
    with answering(as_json) as answer:
        screen = tables.console(sys.stderr)
        left = projection.synchronize(store, name, warn=lambda line: screen.print(line, markup=False))
        document = {"name": name, "left": {backlog.name: backlog.events for backlog in left}}
        text = "; ".join(f"{backlog.events} events are left for {backlog.name}: {backlog.reason}" for backlog in left)
        answer.give(document, lambda screen: screen.print(text or f"{name}: everything is sent", markup=False))
        return int(bool(left))


COMMAND = Command(sync, examples=("metaloom sync first",))
