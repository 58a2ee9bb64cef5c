"""``metaloom rename``: gives a search another name."""

import sys
from typing import Annotated

import typer

from metaloom.orchestrator.command_line.answers import JsonOption, NameArgument, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE, Store

with deferred():
    from metaloom.orchestrator import housekeeping
    from metaloom.orchestrator.command_line import tables


def rename(
    name: NameArgument,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name, which no search has.")],
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Rename a search, its runs in MLflow and its study in Optuna's database.

    A search that runs is refused. After a kill the same command does the rest.
    """
    with answering(as_json) as answer:
        screen = tables.console(sys.stderr)
        left = housekeeping.rename(name, new, store=store, warn=lambda line: screen.print(line, markup=False))
        for backlog in left:
            screen.print(backlog.told(Store(store).folder(new)), markup=False)
        document = {"before": name, "name": new, "left": {one.name: one.events for one in left}}
        answer.give(document, lambda screen: screen.print(f"{name} is now {new}", markup=False))


COMMAND = Command(rename, examples=("metaloom rename quick first",))
