"""``metaloom plot``: draws a search to a PNG or SVG file."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from metaloom.orchestrator.command_line.answers import JsonOption, NameArgument, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.orchestrator import plotting
    from metaloom.orchestrator.command_line import progress, tables


def plot(
    name: NameArgument,
    kind: Annotated[
        str,
        typer.Option(
            "--kind", metavar="history|curves|importance|parallel|slice|pareto|transfer|sets", help="What is drawn."
        ),
    ] = "history",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="A .png or .svg file; by default NAME-KIND.png.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Draw a search to a PNG or SVG file.

    history: each trial's value, and the best so far; curves: each trial over its outer steps; importance: how much of
    the value's variation each knob explains, by Optuna's PED-ANOVA; parallel: the trials as lines over their knobs;
    slice: each knob against the value; pareto: the first two objectives; transfer: the value by how many layers of a
    bundle are taken, frozen or fine-tuned; sets: the value by how many data sets were trained on. Knobs that are
    searched on a logarithmic scale have logarithmic axes.
    """
    with answering(as_json) as answer, progress.shown_progress(tables.console(sys.stderr)):  # for the warnings
        path = plotting.plot(name, kind, out=out, store=store)
        answer.give({"kind": kind, "file": str(path)}, lambda screen: screen.print(str(path), markup=False))


COMMAND = Command(plot, examples=("metaloom plot first --kind slice --out slice.svg",))
