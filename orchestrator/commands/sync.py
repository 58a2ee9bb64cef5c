"""``metaloom sync``: what MLflow has missed while a search ran."""

import sys

from metaloom.orchestrator.command_line.answers import JsonOption, NameArgument, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.orchestrator.command_line import tables
    from metaloom.orchestrator.tracking import synchronize


def sync(name: NameArgument, store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> int:
    """Send MLflow what it has missed while a search ran.

    The exit code is 1 if some of it is still left.
    """
    with answering(as_json) as answer:
        screen = tables.console(sys.stderr)
        left = synchronize.synchronize(store, name, warn=lambda line: screen.print(line, markup=False))
        document = {"name": name, "left": {one.name: one.events for one in left}}
        text = "; ".join(f"{one.events} events are left for {one.name}: {one.reason}" for one in left)
        answer.give(document, lambda screen: screen.print(text or f"{name}: everything is sent", markup=False))
        return int(bool(left))


COMMAND = Command(sync, examples=("metaloom sync first",))
