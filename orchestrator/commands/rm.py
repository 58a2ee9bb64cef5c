"""``metaloom rm``: removes searches."""

from dataclasses import asdict
from typing import Annotated

import typer

from metaloom.dashboards.text import counted, size
from metaloom.orchestrator.command_line.answers import JsonOption, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.orchestrator import housekeeping


def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The searches' names.")],
    keep_runs: Annotated[bool, typer.Option("--keep-runs", help="Leave their runs in MLflow.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, and change nothing.")] = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Remove searches, their runs in MLflow and their studies in Optuna's database.

    A search that runs is refused. After a kill the same command removes the rest. Bundles are other folders, and stay.
    The stages of their trials go with them where no other search uses them and none runs.
    """
    with answering(as_json) as answer:
        names = list(dict.fromkeys(names))
        found = [housekeeping.remove(name, store=store, dry_run=True) for name in names]  # all are there
        if not dry_run:
            found = [housekeeping.remove(name, store=store, keep_runs=keep_runs) for name in names]
        verb, lines = "would remove" if dry_run else "removed", []
        for one in found:
            runs = "" if one.runs is None else f", {counted(one.runs, 'run')} in MLflow"
            stages = f", {counted(len(one.stages), 'stage')} that no other search uses" if one.stages else ""
            lines.append(f"{verb} {one.name}: {counted(one.trials, 'trial')}, {size(one.bytes)}{runs}{stages}")
        document = {"dry_run": dry_run, "removed": list(map(asdict, found))}
        answer.give(document, lambda screen: screen.print("\n".join(lines), markup=False))


COMMAND = Command(rm, examples=("metaloom rm first", "metaloom rm first second --dry-run"))
