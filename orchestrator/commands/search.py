"""``metaloom search``: many trials, each with the knobs that the sampler suggests."""

import functools
from typing import Annotated

import typer

from metaloom.orchestrator.command_line.answers import (
    ExperimentArgument,
    JsonOption,
    SetOption,
    StoreOption,
    TrustOption,
    answering,
)
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.options import (
    AddressOption,
    BudgetOption,
    ConcurrencyOption,
    ExecutorOption,
    InsecureOption,
    NameOption,
    SeedOption,
)
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.orchestrator import api
    from metaloom.orchestrator.command_line import running


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
    trust_code: TrustOption = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> int:
    """Run a search: many trials, each with suggested knobs."""
    with answering(as_json) as answer:
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
            trust_code=trust_code,
            concurrency=concurrency,
            time_budget_s=time_budget_s,
            seed=seed,
        )
        return running.run_shown(answer, store, run)


COMMAND = Command(
    search,
    examples=(
        "metaloom search default --trials 12",
        "metaloom search my.yaml --name first --set learner.update.rate=search",
    ),
)
