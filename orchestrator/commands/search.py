"""``metaloom search``: runs many trials with the sampler's knobs."""

import functools
from typing import Annotated

import typer

from metaloom.orchestrator.command_line import answers, options
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.orchestrator import api
    from metaloom.orchestrator.command_line import running


def search(
    experiment: answers.ExperimentArgument,
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="The number of trials.")] = None,
    name: options.NameOption = None,
    changes: answers.SetOption = [],  # noqa: B006  (typer copies it)
    seed: options.SeedOption = None,
    executor: options.ExecutorOption = "ray",
    address: options.AddressOption = None,
    insecure_cluster: options.InsecureOption = False,
    concurrency: options.ConcurrencyOption = None,
    time_budget_s: options.BudgetOption = None,
    trust_code: answers.TrustOption = False,
    store: answers.StoreOption = DEFAULT_STORE,
    as_json: answers.JsonOption = False,
) -> int:
    """Run a search: many trials, each with suggested knobs."""
    with answers.answering(as_json) as answer:
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
