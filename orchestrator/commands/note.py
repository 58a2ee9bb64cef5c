"""``metaloom note``: adds a remark to a search or a trial."""

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


def note(
    name: NameArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The remark.")],
    trial: Annotated[int | None, typer.Option("--trial", min=0, help="Of this trial, not of the search.")] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Add a remark to a search or to one of its trials, for 'metaloom show' and MLflow.

    It is part of the journal, and stays. A search that runs is refused.
    """
    with answering(as_json) as answer:
        screen = tables.console(sys.stderr)
        left = housekeeping.note(
            name, text, trial=trial, store=store, warn=lambda line: screen.print(line, markup=False)
        )
        for backlog in left:
            screen.print(backlog.told(Store(store).folder(name)), markup=False)
        place = name if trial is None else f"trial {trial} of {name}"
        document = {"name": name, "trial": trial, "note": text, "left": {one.name: one.events for one in left}}
        answer.give(document, lambda screen: screen.print(f"noted with {place}", markup=False))


COMMAND = Command(note, examples=("metaloom note first 'learning rate too high'", "metaloom note first good --trial 3"))
