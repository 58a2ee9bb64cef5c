"""What ``replay`` and ``simulate`` share: their options, their progress, and how their answer is printed."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaloom.dashboards.text import number, scored, span
from metaloom.orchestrator.command_line.answers import QUIET, Answer, Screen, verbosity
from metaloom.orchestrator.command_line.deferred import deferred

if TYPE_CHECKING:
    from rich.table import Table

    from metaloom.dashboards.simulated_rows import SimulationRow, StrategyRow
    from metaloom.workers.data.result_tables import ResultTable

with deferred():
    from metaloom.dashboards import regret_plot, rows
    from metaloom.orchestrator.command_line import tables
    from metaloom.orchestrator.simulation import comparing

QUIET_S = 5.0  # the least time between two lines of progress

SamplerOption = Annotated[
    list[str],
    typer.Option(
        "--sampler",
        metavar="KIND",
        help="A sampler, or a mapping such as '{kind: tpe, startup_trials: 5}'. Repeatable.",
    ),
]
SchedulerOption = Annotated[
    list[str], typer.Option("--scheduler", metavar="KIND", help="A scheduler, likewise. Repeatable: each with each.")
]
SeedsOption = Annotated[int, typer.Option("--seeds", min=1, help="Simulated searches of each, one a seed.")]
WorkersOption = Annotated[int, typer.Option("--workers", min=1, help="Simulated trials at once.")]
TargetOption = Annotated[
    float | None, typer.Option("--target", help="A value to be reached; by default the best of all.")
]
SimulatedBudgetOption = Annotated[
    float | None,
    typer.Option("--time-budget", metavar="S", min=0.0, help="End each search after S simulated seconds."),
]
FigureOption = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Draw the best so far and the regret: a .png or .svg.")
]


class SimulationLines:
    """Prints on stderr how many searches are done, at most a line every few seconds."""

    def __init__(self, searches: int) -> None:
        self._searches, self._done, self._said_at = searches, 0, time.monotonic()
        self._screen = tables.console(sys.stderr)

    def note(self, name: str) -> None:
        """Count a search of the strategy ``name``."""
        self._done += 1
        now = time.monotonic()
        if now - self._said_at >= QUIET_S and verbosity.get() != QUIET:
            self._said_at = now
            self._screen.print(f"{self._done} of {self._searches} searches simulated; now {name}", markup=False)


def show_simulation(screen: Screen, found: "SimulationRow") -> None:
    """Print the tables of simulated searches."""
    count = f"{found.configurations} configurations, each {'once only' if found.once else 'as often as asked for'}"
    better = "more" if found.direction == "maximize" else "less"
    screen.print(f"{found.table}: {count}; {found.measure}, of which {better} is better", markup=False)
    most = max(found.strategies, key=lambda one: len(one.by_trials))
    for head, field in (("best so far", "best"), ("regret", "regret")):
        shown = tables.table(f"{head} after trials", *(one.name for one in found.strategies))
        for place, point in enumerate(most.by_trials):
            shown.add_row(*tables.row(number(point.at), *(_cell(one, place, field) for one in found.strategies)))
        screen.print(shown)
    shown = tables.table(f"regret after {_time_of(found)}", *(one.name for one in found.strategies))
    for place, point in enumerate(most.by_time):
        cells = [scored(one.by_time[place].regret, one.by_time[place].regret_interval) for one in found.strategies]
        shown.add_row(*tables.row(_time(found, point.at), *cells))
    screen.print(shown)
    screen.print(_summary(found))
    _show_left_out(screen, found)


def _summary(found: "SimulationRow") -> "Table":
    to = f"{found.measure} {number(found.target)}"
    heads = (f"trials to {to}: median [quartiles]", f"{_time_of(found)} to it", "reached by", "trials", "stopped early")
    shown = tables.table("search", *heads, _time_of(found))
    for one in found.strategies:
        low, high = one.reached.trials_quartiles
        quartiles = "" if len(one.seeds) == 1 else f" [{_or_more(low)}, {_or_more(high)}]"
        cells = [f"{_or_more(one.reached.trials)}{quartiles}"]
        cells += ["-" if one.reached.time is None else _time(found, one.reached.time)]
        cells += [f"{one.reached.seeds} of {len(one.seeds)}", number(one.trials), number(one.stopped)]
        shown.add_row(*tables.row(one.name, *cells, _time(found, one.time)))
    return shown


def _show_left_out(screen: Screen, found: "SimulationRow") -> None:
    """Say how much the table does not show of what the searches asked for."""
    for one in found.strategies:
        if one.left_out.trials:
            lacking = f"{number(one.left_out.trials)} of {number(one.trials)} trials would have gone on"
            steps = f"{number(one.left_out.steps)} steps, {one.left_out.share:.0%} of those asked for"
            screen.print(f"{one.name}: {lacking} where their curves end: {steps}, are left out", markup=False)


def _cell(one: "StrategyRow", place: int, field: str) -> str:
    if place >= len(one.by_trials):
        return "-"
    point = one.by_trials[place]
    return scored(getattr(point, field), getattr(point, f"{field}_interval"))


def _or_more(trials: float | None) -> str:
    return "not reached" if trials is None else number(trials)


def _time_of(found: "SimulationRow") -> str:
    return "simulated time" if found.unit == "s" else "steps"


def _time(found: "SimulationRow", at: float) -> str:
    return span(at) if found.unit == "s" else number(at)


def answer_with(
    answer: Answer,
    table: "ResultTable",
    strategies: "Sequence[comparing.Strategy]",
    *,
    workers: int,
    target: float | None,
    figure: Path | None,
) -> None:
    """Run the searches, draw them if a file is named, and give the answer; raises BadInput for another form of file."""
    form = None if figure is None else regret_plot.form_of(figure)
    lines = SimulationLines(sum(len(one.seeds) for one in strategies))
    found = comparing.compare(
        table,
        strategies,
        workers=workers,
        target=target,
        told=lambda strategy, seed, search: lines.note(strategy.name),
    )
    document = rows.to_json(found)
    if figure is not None and form is not None:
        regret_plot.draw_regret(found, figure, form)
        document["figure"] = str(figure)
    answer.give(document, lambda screen: show_simulation(screen, found))
