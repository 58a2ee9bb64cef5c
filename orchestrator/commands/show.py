"""``metaloom show``: shows a search, its trials, and what the best one has learned."""

import sys
from pathlib import Path

from metaloom.learners.errors import MetaloomError
from metaloom.orchestrator.command_line.answers import JsonOption, NameArgument, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE
from metaloom.workers.records import names as records

with deferred():
    from metaloom.dashboards import queries
    from metaloom.orchestrator.command_line import tables
    from metaloom.workers.records import ranking


def show(name: NameArgument, store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """Show a search and its trials, and what the best one has learned.

    Each trial has its state, objective, 95% interval, knobs and time; what was learned has captions and figures.
    """
    with answering(as_json) as answer:
        draw_if_missing(store, name)
        summary = queries.search_summary(store, name)
        answer.give(summary, lambda screen: tables.show_search(screen, summary, notes=True))


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


COMMAND = Command(show, examples=("metaloom show first", "metaloom show first --json"))
