"""``metaloom repair``: mends the damaged journal of a search."""

from typing import Annotated

import typer

from metaloom.orchestrator.command_line.answers import JsonOption, NameArgument, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE, Store

with deferred():
    from metaloom.orchestrator import repair as repairing

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")]


def repair(
    name: NameArgument, dry_run: DryRunOption = False, store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False
) -> int:
    """Mend the damaged journal of a search from its copies and its trials' records.

    Damaged files are set aside, never deleted. Exits with code 1 if events are lost, 3 if nothing can be mended.
    """
    with answering(as_json) as answer:
        done = repairing.repair(Store(store).existing_folder(name), dry_run=dry_run)
        nothing = f"{done.events} events, each with its checksum; nothing to repair"
        text = "\n".join(f"{name}: {line}" for line in done.lines or [nothing])
        answer.give({"name": name, "dry_run": dry_run, **vars(done)}, lambda screen: screen.print(text, markup=False))
        return int(bool(done.lost))


COMMAND = Command(repair, examples=("metaloom repair first", "metaloom repair first --dry-run"))
