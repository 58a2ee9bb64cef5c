"""Commands that look at records: runs, show, episodes, sync."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from metaloom.learners.errors import MetaloomError
from metaloom.orchestrator.commands.answers import JsonOption, NameArgument, StoreOption, answering, console
from metaloom.orchestrator.store import DEFAULT_STORE
from metaloom.workers.records import names as records


def runs(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """List the searches of a store."""
    with answering(as_json) as answer:
        from metaloom.dashboards import queries
        from metaloom.orchestrator.commands.tables import show_searches

        rows = queries.list_searches(store)
        answer.give({"searches": rows}, lambda screen: show_searches(screen, rows, store))


def show(name: NameArgument, store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """Show a search and its trials, and what the best one has learned.

    Each with its state, objective, 95% interval, knobs and time; what was learned in words, and where it is drawn.
    """
    with answering(as_json) as answer:
        from metaloom.dashboards import queries
        from metaloom.orchestrator.commands.tables import show_search

        draw_if_missing(store, name)
        summary = queries.search_summary(store, name)
        answer.give(summary, lambda screen: show_search(screen, summary, notes=True))


def draw_if_missing(store: Path, name: str) -> None:
    """Draw what the best trial has learned where a search's end, which does so, was broken off."""
    from metaloom.dashboards import queries

    history = queries.search_history(store, name)
    best = queries.best_trial(history)
    if best is None or best.state != records.FINISHED or history.state == records.RUNNING:
        return
    if queries.is_drawn(store, name, best.id):
        return
    from metaloom.dashboards.figures import draw_trial  # torch and matplotlib, which show does without

    try:
        draw_trial(store, name, best.id)
    except (MetaloomError, OSError) as error:
        told = f"metaloom: what trial {best.id} has learned cannot be drawn: {error}"
        console(sys.stderr).print(told, style="yellow", markup=False)


def episodes(
    name: NameArgument,
    trial: Annotated[int | None, typer.Option("--trial", min=0, help="Of this trial only.")] = None,
    phase: Annotated[
        str | None, typer.Option("--phase", metavar="P", help="train, validation or test episodes only.")
    ] = None,
    where: Annotated[str | None, typer.Option("--where", metavar="EXPR", help="A condition over the columns.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Print at most so many.")] = 20,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Print the records of single episodes.

    Of training, validation and test; every one is recorded.
    """
    with answering(as_json) as answer:
        from metaloom.dashboards import queries
        from metaloom.orchestrator.commands.tables import show_episodes

        found = queries.episode_rows(store, name, trial=trial, phase=phase, where=where, limit=limit)
        for column in found.empty:
            told = f"--where: {column} is empty (null) in every row that the other conditions keep"
            console(sys.stderr).print(told, markup=False)
        document = {"rows": found.rows, "total": found.total}
        answer.give(document, lambda screen: show_episodes(screen, found.rows, found.total))


def sync(name: NameArgument, store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> int:
    """Send MLflow what it has missed while a search ran.

    The exit code is 1 if some of it is still left.
    """
    with answering(as_json) as answer:
        from metaloom.orchestrator.tracking.synchronize import synchronize

        screen = console(sys.stderr)
        left = synchronize(store, name, warn=lambda line: screen.print(line, markup=False))
        document = {"name": name, "left": {one.name: one.events for one in left}}
        text = "; ".join(f"{one.events} events are left for {one.name}: {one.reason}" for one in left)
        answer.give(document, lambda screen: screen.print(text or f"{name}: everything is sent", markup=False))
        return int(bool(left))
