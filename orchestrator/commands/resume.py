"""``metaloom resume``: resumes a search that was stopped or killed, from its journal."""

from typing import Annotated

import typer

from metaloom.orchestrator.command_line import answers
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.orchestrator import api
    from metaloom.orchestrator.command_line import progress


def resume(
    name: answers.NameArgument,
    executor: Annotated[
        str | None, typer.Option("--executor", metavar="ray|inline", help="Instead of the one it was begun with.")
    ] = None,
    address: answers.AddressOption = None,
    insecure_cluster: answers.InsecureOption = False,
    concurrency: answers.ConcurrencyOption = None,
    time_budget_s: Annotated[
        float | None,
        typer.Option(
            "--time-budget", metavar="S", min=0.0, help="A larger time budget, also of a search that its own has ended."
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option("--trials", metavar="N", min=1, help="Go on to N trials in all, also of a search that has ended."),
    ] = None,
    trust_code: answers.TrustOption = False,
    store: answers.StoreOption = DEFAULT_STORE,
    as_json: answers.JsonOption = False,
) -> int:
    """Resume a search that was stopped or killed, or extend one that has ended. Finished work is not repeated."""
    with answers.answering(as_json) as answer:
        return progress.run_shown(
            answer,
            api.resume,
            name,
            store=store,
            executor=executor,
            address=address,
            insecure_cluster=insecure_cluster,
            trust_code=trust_code,
            concurrency=concurrency,
            time_budget_s=time_budget_s,
            trials=trials,
        )


COMMAND = Command(
    resume,
    examples=("metaloom resume first", "metaloom resume first --time-budget 3600", "metaloom resume first --trials 30"),
)
