"""Commands that run trials: search, train, resume."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaloom.orchestrator.commands.answers import (
    Answer,
    ExperimentArgument,
    JsonOption,
    NameArgument,
    SetOption,
    StoreOption,
    answering,
    console,
)
from metaloom.orchestrator.store import DEFAULT_STORE

if TYPE_CHECKING:
    from metaloom.orchestrator.session import SearchSummary

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
        help="After S seconds begin no trial, and stop those that run when they next validate.",
    ),
]


def search(
    experiment: ExperimentArgument,
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="How many trials.")] = None,
    name: NameOption = None,
    changes: SetOption = [],  # noqa: B006  (typer copies it)
    seed: SeedOption = None,
    executor: ExecutorOption = "ray",
    address: AddressOption = None,
    insecure_cluster: InsecureOption = False,
    concurrency: ConcurrencyOption = None,
    time_budget_s: BudgetOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> int:
    """Run a search: many trials, each with suggested knobs."""
    with answering(as_json) as answer:
        from metaloom.orchestrator import api

        run = functools.partial(
            api.search,
            experiment,
            overrides=changes,
            store=store,
            name=name,
            trials=trials,
            executor=executor,
            address=address,
            insecure_cluster=insecure_cluster,
            concurrency=concurrency,
            time_budget_s=time_budget_s,
            seed=seed,
        )
        return _run(answer, store, run)


def train(
    experiment: ExperimentArgument,
    name: NameOption = None,
    changes: SetOption = [],  # noqa: B006
    seed: SeedOption = None,
    executor: ExecutorOption = "inline",
    address: AddressOption = None,
    insecure_cluster: InsecureOption = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> int:
    """Run one trial; a searched knob takes its default, and that is said."""
    with answering(as_json) as answer:
        from metaloom.orchestrator import api

        run = functools.partial(
            api.train,
            experiment,
            overrides=changes,
            store=store,
            name=name,
            executor=executor,
            address=address,
            insecure_cluster=insecure_cluster,
            seed=seed,
        )
        return _run(answer, store, run)


def resume(
    name: NameArgument,
    executor: Annotated[
        str | None,
        typer.Option("--executor", metavar="ray|inline", help="Instead of the one it was begun with."),
    ] = None,
    address: AddressOption = None,
    insecure_cluster: InsecureOption = False,
    concurrency: ConcurrencyOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> int:
    """Go on with a search that was stopped or killed.

    Nothing that is finished is done again.
    """
    with answering(as_json) as answer:
        from metaloom.orchestrator import api

        run = functools.partial(
            api.resume,
            name,
            store,
            executor=executor,
            address=address,
            insecure_cluster=insecure_cluster,
            concurrency=concurrency,
        )
        return _run(answer, store, run)


def _run(answer: Answer, store: Path, run: "Callable[..., SearchSummary]") -> int:
    """Run a search with its progress shown, answer with how it ended, and return the exit code."""
    from metaloom.dashboards import queries
    from metaloom.orchestrator.commands.progress import shown_progress
    from metaloom.orchestrator.commands.tables import interrupted_line, show_outcome
    from metaloom.orchestrator.state import INTERRUPTED
    from metaloom.orchestrator.store import command, private_umask

    private_umask()
    aside = console(sys.stderr)
    with shown_progress(aside) as progress:
        ended = run(progress=progress)
    for note in ended.notes:
        aside.print(note, markup=False)
    for backlog in ended.backlogs:
        send = command("sync", store / "searches" / ended.name)
        text = f"{backlog.events} events have not reached {backlog.name} yet; '{send}' sends them"
        aside.print(text, markup=False)
    summary = queries.search_summary(store, ended.name)
    if answer.as_json and summary["state"] == INTERRUPTED:
        aside.print(interrupted_line(summary, store), markup=False)
    answer.give(summary, lambda screen: show_outcome(screen, summary, store))
    return ended.exit_code
