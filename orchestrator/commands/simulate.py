"""``metaloom simulate``: searches on a table of results, without training."""

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

with deferred():
    from metaloom.orchestrator.simulation import asking


def simulate(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A CSV, Parquet or Arrow file, or FAMILY/NAME.")],
    objective: Annotated[
        str | None, typer.Option("--objective", metavar="COLUMN", help="Of a file: the value that is judged.")
    ] = None,
    minimize: Annotated[
        bool | None, typer.Option("--minimize/--maximize", help="Whether less of it is better, or more.")
    ] = None,
    knobs: Annotated[
        str, typer.Option("--knobs", metavar="A,B", help="The columns of the knobs; by default all the others.")
    ] = "",
    seconds: Annotated[
        str | None, typer.Option("--seconds", metavar="COLUMN", help="Seconds from a training's begin to its value.")
    ] = None,
    step: Annotated[
        str | None, typer.Option("--step", metavar="COLUMN", help="The step, where rows are learning curves.")
    ] = None,
    sampler: SamplerOption = [],  # noqa: B006  (typer copies it)
    scheduler: SchedulerOption = [],  # noqa: B006
    trials: Annotated[int, typer.Option("--trials", min=1, help="Of each search.")] = 100,
    seeds: SeedsOption = 10,
    seed: answers.SeedOption = None,
    workers: WorkersOption = 1,
    time_budget_s: SimulatedBudgetOption = None,
    target: TargetOption = None,
    figure: FigureOption = None,
    as_json: answers.JsonOption = False,
) -> None:
    """Simulate searches on a table of results, with a simulated clock and simulated workers.

    Nothing is trained. The sampler proposes as in a search, and the nearest configuration of the table is taken: again
    if the table is a whole grid of its knobs' values, else once. By default the sampler is tpe, without a scheduler.
    """
    with answers.answering(as_json) as answer:
        columns = asking.AskedColumns(
            objective, minimize, [name.strip() for name in knobs.split(",") if name.strip()], seconds, step
        )
        asked = asking.Asked(sampler, scheduler, seeds, time_budget_s)
        found, strategies = asking.asked_of_table(table, columns, asked, trials=trials, first_seed=seed or 0)
        answer_with(answer, found, strategies, workers=workers, target=target, figure=figure)


COMMAND = Command(
    simulate,
    examples=(
        "metaloom simulate hpobench/car --sampler random --sampler tpe --trials 200",
        "metaloom simulate results.csv --knobs lr,width --objective loss --minimize",
        "metaloom simulate results.csv --objective accuracy --maximize --sampler random --sampler tpe --trials 50",
        "metaloom simulate curves.parquet --objective loss --minimize --step epoch --seconds time --scheduler asha",
    ),
)
