"""Runs a search for the command line: progress on stderr, then the result."""

import sys
from collections.abc import Callable
from pathlib import Path

from metaloom.dashboards import queries
from metaloom.orchestrator.command_line import tables
from metaloom.orchestrator.command_line.answers import Answer
from metaloom.orchestrator.command_line.progress import shown_progress
from metaloom.orchestrator.store import command, private_umask
from metaloom.orchestrator.summary import SearchSummary
from metaloom.workers.records.names import INTERRUPTED, SEARCHES_FOLDER


def run_shown(answer: Answer, store: Path, run: Callable[..., SearchSummary]) -> int:
    """Run a search, show its progress, answer with its result, and return the exit code."""
    private_umask()
    stderr = tables.console(sys.stderr)
    with shown_progress(stderr) as progress:
        ended = run(progress=progress)
    for note in ended.notes:
        stderr.print(note, markup=False)
    for backlog in ended.backlogs:
        send = command("sync", store / SEARCHES_FOLDER / ended.name)
        text = f"{backlog.events} events have not reached {backlog.name} yet; '{send}' sends them"
        stderr.print(text, markup=False)
    summary = queries.search_summary(store, ended.name)
    if answer.as_json and summary["state"] == INTERRUPTED:
        stderr.print(tables.interrupted_line(summary, store), markup=False)
    answer.give(summary, lambda screen: tables.show_outcome(screen, summary, store))
    return ended.exit_code
