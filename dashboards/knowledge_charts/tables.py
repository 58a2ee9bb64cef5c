"""The numbers of a chart as a table: one row a number or a pair of numbers."""

from collections.abc import Iterator, Sequence
from typing import Any

from metaloom.dashboards.charts.base import ChartTable
from metaloom.dashboards.knowledge_facts.panels import (
    Bars,
    CellGraph,
    Heat,
    Histogram,
    Lines,
    Panel,
    Plane,
    Rows,
    Sheet,
)

MOST_ROWS = 2000
HEADS = ("of", "name", "x", "value", "text")


def table_of(panels: Sequence[Panel]) -> tuple[ChartTable, str]:
    """Return one table of all panels without its empty columns, and a note where it is cut."""
    rows = [row for panel in panels for row in _rows(panel)]
    kept = rows[:MOST_ROWS]
    used = [index for index in range(len(HEADS)) if any(row[index] not in (None, "") for row in kept)]
    table = ChartTable([HEADS[index] for index in used], [[row[index] for index in used] for row in kept])
    note = f"The table has the first {MOST_ROWS:,} of {len(rows):,} rows." if len(rows) > MOST_ROWS else ""
    return table, note


def _rows(panel: Panel) -> Iterator[tuple[Any, ...]]:
    match panel:
        case Lines():
            for curve in panel.curves:
                for x, y in zip(curve.x, curve.y, strict=True):
                    yield panel.title or panel.up, curve.name, x, y, ""
            for mark in panel.marks:
                yield panel.title or panel.up, mark.name, mark.x, mark.y, ""
        case Bars():
            for index, (name, value) in enumerate(zip(panel.names, panel.values, strict=True)):
                ends = f"{panel.lows[index]:.4g} to {panel.highs[index]:.4g}" if panel.lows else ""
                yield panel.title or panel.up, name, None, value, ends
        case Histogram():
            for name, counts in panel.groups:
                for start, count in zip(panel.edges, counts, strict=False):
                    yield panel.up, name, start, count, ""
        case Plane():
            for cloud in panel.clouds:
                for index, (x, y) in enumerate(zip(cloud.x, cloud.y, strict=True)):
                    yield panel.title, cloud.name, x, y, f"class {cloud.classes[index]}" if cloud.classes else ""
        case Rows():
            for group, each in panel.groups:
                for name, values in zip(panel.names, each, strict=True):
                    for value in values:
                        yield group, name, None, value, ""
        case Heat():
            yield from _heat_rows(panel)
        case CellGraph():
            for edge in panel.edges:
                yield "edge", f"{panel.nodes[edge.start]} to {panel.nodes[edge.end]}", None, edge.share, edge.operation
        case Sheet():
            for row in panel.rows:
                yield panel.title, row[0], None, None, ", ".join(row[1:])


def _heat_rows(panel: Heat) -> Iterator[tuple[Any, ...]]:
    for row, values in enumerate(panel.values.tolist()):
        for column, value in enumerate(values):
            x = panel.xs[column] if panel.xs else panel.columns[column] if panel.columns else float(column)
            y = f"{panel.ys[row]:.4g}" if panel.ys else panel.lines[row] if panel.lines else str(row)
            text = panel.texts[row][column] if panel.texts else ""
            yield panel.title or panel.scale, y, x, value, text
