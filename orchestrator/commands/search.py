"""``metaloom search``: runs many trials with the sampler's knobs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from metaloom.orchestrator.command_line import answers
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.orchestrator import api, preparing
    from metaloom.orchestrator.command_line import progress


def search(
    experiment: answers.ExperimentArgument,
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="The number of trials.")] = None,
    enqueue: Annotated[
        Path | None,
        typer.Option("--enqueue", metavar="FILE", help="Try the knobs of a YAML file first: one mapping, or a list."),
    ] = None,
    search_from: Annotated[
        Path | None,
        typer.Option("--search-from", metavar="BUNDLE", help="Take sampler, scheduler and portfolio from a bundle."),
    ] = None,
    name: answers.NameOption = None,
    changes: answers.SetOption = [],  # noqa: B006  (typer copies it)
    seed: answers.SeedOption = None,
    executor: answers.ExecutorOption = "ray",
    address: answers.AddressOption = None,
    insecure_cluster: answers.InsecureOption = False,
    concurrency: answers.ConcurrencyOption = None,
    time_budget_s: answers.BudgetOption = None,
    trust_code: answers.TrustOption = False,
    dry_run: answers.DryRunOption = False,
    store: answers.StoreOption = DEFAULT_STORE,
    as_json: answers.JsonOption = False,
) -> int:
    """Run a search: many trials, each with suggested knobs."""
    with answers.answering(as_json) as answer:
        given: dict[str, Any] = {
            "overrides": changes,
            "store": store,
            "name": name,
            "trials": trials,
            "enqueue": enqueue,
            "search_from": search_from,
            "executor": executor,
            "address": address,
            "insecure_cluster": insecure_cluster,
            "trust_code": trust_code,
            "concurrency": concurrency,
            "time_budget_s": time_budget_s,
            "seed": seed,
        }
        if dry_run:
            return progress.show_plan(answer, preparing.prepare_search(experiment, **given))
        return progress.run_shown(answer, api.search, experiment, **given)


COMMAND = Command(
    search,
    examples=(
        "metaloom search default --trials 12",
        "metaloom search my.yaml --enqueue knobs.yaml",
        "metaloom search my.yaml --search-from over-bundle",
        "metaloom search my.yaml --name first --set learner.update.rate=search",
        "metaloom search my.yaml --dry-run",
    ),
)
