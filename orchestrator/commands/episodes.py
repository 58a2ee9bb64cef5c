"""``metaloom episodes``: the records of single episodes."""

import sys
from typing import Annotated

import typer

from metaloom.orchestrator.command_line.answers import JsonOption, NameArgument, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.dashboards import queries
    from metaloom.orchestrator.command_line import tables


def episodes(
    name: NameArgument,
    trial: Annotated[int | None, typer.Option("--trial", min=0, help="Of this trial only.")] = None,
    phase: Annotated[
        str | None, typer.Option("--phase", metavar="P", help="train, validation or test episodes only.")
    ] = None,
    where: Annotated[str | None, typer.Option("--where", metavar="EXPR", help="A condition over the columns.")] = None,
    stage: Annotated[
        str | None, typer.Option("--stage", metavar="NAME", help="Of this stage before the trials, or before --trial.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="The most rows to print.")] = 20,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Print the records of single episodes, from training, validation and test."""
    with answering(as_json) as answer:
        episodes = queries.episode_rows(store, name, trial=trial, phase=phase, where=where, limit=limit, stage=stage)
        for part in episodes.damaged:
            tables.console(sys.stderr).print(f"warning: {part}", style="yellow", markup=False)
        for column in episodes.empty:
            message = f"--where: {column} is empty (null) in every row that the other conditions keep"
            tables.console(sys.stderr).print(message, markup=False)
        document = {"rows": episodes.rows, "total": episodes.total, "damaged": list(map(str, episodes.damaged))}
        answer.give(document, lambda screen: tables.show_episodes(screen, episodes.rows, episodes.total))


COMMAND = Command(
    episodes,
    examples=(
        "metaloom episodes first --phase validation --where 'accuracy_after > 0.9 and trial in [0, 3]'",
        "metaloom episodes first --stage pretrain --phase validation",
    ),
)
