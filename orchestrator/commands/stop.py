"""``metaloom stop``: tells the process that runs a search to end with complete records."""

from dataclasses import asdict
from typing import Annotated

import typer

from metaloom.orchestrator.command_line.answers import JsonOption, NameArgument, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE, command

with deferred():
    from metaloom.orchestrator import stopping


def stop(
    name: NameArgument,
    wait_s: Annotated[
        float, typer.Option("--wait", metavar="S", min=0.0, help="Wait at most S seconds for its end.")
    ] = 60.0,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> int:
    """Stop a search that runs on this machine, as Ctrl-C in its terminal does: its records are completed first.

    It can be resumed. A search that was told to stop already gets no second signal, which would end it at once. The
    exit code is 1 if it has not ended in this time.
    """
    with answering(as_json) as answer:
        done = stopping.stop(name, store=store, wait_s=wait_s)
        told = "had been told to stop" if done.told_before else "was told to stop"
        again = command("resume", store.absolute() / "searches" / name)
        ending = f"has ended; go on with it by: {again}" if done.ended else "is completing its records"
        line = f"process {done.pid}, which runs {name}, {told}, and {ending}"
        answer.give(asdict(done), lambda screen: screen.print(line, markup=False))
        return 0 if done.ended or not wait_s else 1


COMMAND = Command(stop, examples=("metaloom stop first", "metaloom stop first --wait 0"))
