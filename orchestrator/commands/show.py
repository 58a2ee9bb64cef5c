"""``metaloom show``: shows a search, its trials, and what the best one has learned."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from metaloom.learners.errors import BadInput, MetaloomError
from metaloom.orchestrator.command_line.answers import JsonOption, NameArgument, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE
from metaloom.workers.records import names as records

with deferred():
    from metaloom.dashboards import queries, trial_file
    from metaloom.orchestrator import export
    from metaloom.orchestrator.command_line import tables
    from metaloom.workers.records import ranking


def show(
    name: NameArgument,
    trial: Annotated[
        str | None, typer.Option("--trial", metavar="T", help="With --yaml: a trial's number, or 'best' (the default).")
    ] = None,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Print the experiment file of one trial, for train, and nothing else.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Show a search and its trials, and what the best one has learned.

    Each trial has its state, objective, 95% interval, knobs and time; what was learned has captions and figures.
    With --yaml, print the experiment whose one trial has all settings of a trial, with nothing left to search.
    """
    if as_yaml and as_json:
        raise BadInput("--yaml and --json are two forms of an answer; give one")
    if trial is not None and not as_yaml:
        raise BadInput("--trial chooses the trial that --yaml prints; give --yaml too, or leave it out")
    with answering(as_json) as answer:
        if as_yaml:
            written = yaml_of(store, name, trial or export.BEST)
            answer.give({}, lambda screen: screen.out(written, end="", highlight=False))
            return
        draw_if_missing(store, name)
        summary = queries.search_summary(store, name)
        answer.give(summary, lambda screen: tables.show_search(screen, summary, notes=True))


def yaml_of(store: Path, name: str, trial: str) -> str:
    """Return a trial's experiment as YAML; raises BadInput if there is no such trial, or it has no settings."""
    number = export.chosen_trial(store, name, trial)["id"]
    return trial_file.trial_yaml(queries.search_record(store, name), name, number)


def draw_if_missing(store: Path, name: str) -> None:
    """Draw what the best trial has learned if the search was interrupted before it did so."""
    search = queries.search_record(store, name)
    best = ranking.best(search)
    if best is None or best.state != records.FINISHED or search.state == records.RUNNING:
        return
    if queries.is_drawn(store, name, best.number):
        return
    from metaloom.dashboards.figures import draw_trial  # torch and matplotlib: only if there is something to draw

    try:
        draw_trial(store, name, best.number)
    except (MetaloomError, OSError) as error:
        message = f"metaloom: what trial {best.number} has learned cannot be drawn: {error}"
        tables.console(sys.stderr).print(message, style="yellow", markup=False)


COMMAND = Command(
    show,
    examples=(
        "metaloom show first",
        "metaloom show first --json",
        "metaloom show first --trial best --yaml > best.yaml",
    ),
)
