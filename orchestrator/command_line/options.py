"""The options that the commands which run trials share."""

from typing import Annotated

import typer

NameOption = Annotated[str | None, typer.Option("--name", help="The search's name; by default the file's.")]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Everything random derives from it.")]
ExecutorOption = Annotated[
    str, typer.Option("--executor", metavar="ray|inline", help="On Ray, or one after another in this process.")
]
AddressOption = Annotated[
    str | None, typer.Option("--address", metavar="RAY", help="A Ray cluster; by default Ray is started here.")
]
InsecureOption = Annotated[
    bool, typer.Option("--insecure-cluster", help="Join a cluster that asks for no token (RAY_AUTH_MODE).")
]
ConcurrencyOption = Annotated[int | None, typer.Option("--concurrency", min=1, help="Trials at once.")]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        "--time-budget",
        metavar="S",
        min=0.0,
        help="After S seconds start no trial, and stop running ones at their next validation.",
    ),
]
TrialOption = Annotated[str, typer.Option("--trial", metavar="T", help="A trial's number, or 'best'.")]
