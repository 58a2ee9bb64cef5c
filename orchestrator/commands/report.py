"""``metaloom report``: the report of a search as one HTML file, and as a PDF."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from metaloom.dashboards.text import size
from metaloom.orchestrator.command_line.answers import JsonOption, NameArgument, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.orchestrator import reporting
    from metaloom.orchestrator.command_line import progress, tables


def report(
    name: NameArgument,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="An .html file; by default NAME-report.html.")
    ] = None,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Print it to a PDF beside it too, by Chromium or Chrome if it is installed.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the files if they exist.")] = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Write the report of a search to one HTML file, to mail, to print or to attach to a paper.

    It holds its figures, and needs no other file, no network and no script: what was searched, the best trial with its
    interval and its lead over the baselines, the test and its protocol, all trials, the figures of the search and of
    what was learned, the experiment file, and how to reproduce it. The search may be running.
    """
    with answering(as_json) as answer, progress.shown_progress(tables.console(sys.stderr)):  # for the warnings
        done = reporting.report(name, out=out, pdf=pdf, force=force, store=store)
        document = {"name": name, "file": str(done.file), "bytes": done.bytes, "pdf": done.pdf and str(done.pdf)}
        lines = [f"{done.file}: {size(done.bytes)}", *([str(done.pdf)] if done.pdf else [])]
        answer.give(document, lambda screen: screen.print("\n".join(lines), markup=False))


COMMAND = Command(report, examples=("metaloom report first --out report.html", "metaloom report first --pdf --force"))
