"""``metaloom replay``: other decisions on the curves that a search has logged."""

from typing import Annotated

import typer

from metaloom.orchestrator.command_line import answers
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.command_line.simulated import (
    FigureOption,
    SamplerOption,
    SchedulerOption,
    SeedsOption,
    SimulatedBudgetOption,
    TargetOption,
    WorkersOption,
    answer_with,
)
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.orchestrator.simulation import asking


def replay(
    name: answers.NameArgument,
    sampler: SamplerOption = [],  # noqa: B006  (typer copies it)
    scheduler: SchedulerOption = [],  # noqa: B006
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="At most so many; by default as many as were logged.")
    ] = None,
    seeds: SeedsOption = 10,
    workers: WorkersOption = 1,
    time_budget_s: SimulatedBudgetOption = None,
    target: TargetOption = None,
    figure: FigureOption = None,
    store: answers.StoreOption = DEFAULT_STORE,
    as_json: answers.JsonOption = False,
) -> None:
    """Replay a search with another sampler or scheduler, on the curves that it has logged.

    Nothing is trained. The sampler proposes as in a search; the nearest logged trial that is left is taken, and its
    values are what the sampler learns. A curve that was cut short is followed as far as it was seen, and what is left
    out is counted. Without --sampler and --scheduler these are the search's own, over other seeds.
    """
    with answers.answering(as_json) as answer:
        table, strategies = asking.asked_of_search(
            name, asking.Asked(sampler, scheduler, seeds, time_budget_s), store=store, trials=trials
        )
        answer_with(answer, table, strategies, workers=workers, target=target, figure=figure)


COMMAND = Command(
    replay,
    examples=(
        "metaloom replay first --sampler gp --scheduler paired",
        "metaloom replay first --sampler random --sampler tpe --seeds 20 --plot regret.svg",
        "metaloom replay first --scheduler '{kind: asha, grace_steps: 100}' --workers 4 --json",
    ),
)
