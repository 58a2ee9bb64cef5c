"""``metaloom data``: looks at a table, a folder of images or an experiment's data sets before a search reads them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from metaloom.orchestrator.command_line.answers import JsonOption, Screen, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command

with deferred():
    from metaloom.dashboards import rows
    from metaloom.orchestrator.command_line import data_look, experiment_look, tables

CLASSES_SHOWN = 10


def data(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE_OR_FOLDER", help="A table, a folder of class folders, an experiment or a preset."),
    ],
    label: Annotated[
        str | None, typer.Option("--label", metavar="COLUMN", help="The label's column in a table; by default 'label'.")
    ] = None,
    separator: Annotated[
        str | None, typer.Option("--separator", metavar="CHARACTER", help="Between the cells of a CSV file, or 'tab'.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option("--encoding", metavar="NAME", help="Of a CSV file, such as latin-1.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look at a table or a folder of images: types, classes, examples, what is used and what is left out.

    The last line is a 'tasks' section for an experiment file. Of an experiment the data sets are shown: their classes,
    examples and shapes, which are held out, and how often each is drawn. Nothing is written.
    """
    with answering(as_json) as answer:
        if experiment_look.is_experiment(path):
            document = rows.to_json(experiment_look.look(path))
            answer.give(document, lambda screen: _show_sets(screen, document))
            return
        document = rows.to_json(data_look.look(path, label=label, separator=separator, encoding=encoding))
        answer.give(document, lambda screen: _show(screen, document))


def _show_sets(screen: Screen, found: Mapping[str, Any]) -> None:
    screen.print(f"{found['path']}: data sets", markup=False)
    shown = tables.table("data set", "tasks", "example", "classes", "examples", "serves", "share of training")
    for one in found["sets"]:
        counts = ("without end" if one[name] is None else str(one[name]) for name in ("classes", "examples"))
        share = "-" if one["share"] is None else f"{one['share']:.3g}"
        cells = one["name"], one["kind"], str(list(one["inputs"])), *counts, ", ".join(one["splits"]), share
        shown.add_row(*tables.row(*cells))
    screen.print(shown)
    for note in found["notes"]:
        screen.print(note, markup=False, style="yellow")


def _show(screen: Screen, found: Mapping[str, Any]) -> None:
    noun = "rows" if found["kind"] == "table" else "images"
    form = "; ".join(f"{name} {_listed(value)}" for name, value in found["form"].items())
    screen.print(f"{found['path']}: {found['examples']} {noun}{form and f' ({form})'}", markup=False)
    if found["columns"]:
        shown = tables.table("column", "type", "distinct", "missing", "examples", "use")
        for one in found["columns"]:
            use = one["use"] + (f": they {one['why']}" if "why" in one else "")
            cells = one["name"], one["type"], str(one["distinct"]), str(one["missing"]), ", ".join(one["examples"]), use
            shown.add_row(*tables.row(*cells))
        screen.print(shown)
    if found["classes"]:
        counts = [one["examples"] for one in found["classes"]]
        each = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        listed = ", ".join(f"{one['name']} ({one['examples']})" for one in found["classes"][:CLASSES_SHOWN])
        rest = len(counts) - CLASSES_SHOWN
        more = f" and {rest} more (all with --json)" if rest > 0 else ""
        screen.print(f"{len(counts)} classes of {each} {noun}: {listed}{more}", markup=False)
    for note in found["notes"]:
        screen.print(note, markup=False, style="yellow")
    if found["tasks"] is not None:
        screen.print(data_look.yaml_line(found["tasks"]), markup=False)


def _listed(value: Any) -> str:
    if not isinstance(value, Mapping):
        return repr(value)
    pairs = [f"{count} {name}" for name, count in value.items()]
    return ", ".join(pairs[:3]) + (f" and {len(pairs) - 3} others" if len(pairs) > 3 else "")


COMMAND = Command(
    data,
    examples=(
        "metaloom data flowers.csv --label species",
        "metaloom data letters",
        "metaloom data experiment.yaml",
        "metaloom data many-series",
    ),
)
