"""Draws facts with matplotlib: a pair of axes for each panel."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from metaloom.dashboards.canvas import canvas
from metaloom.dashboards.knowledge_facts import panels as kinds
from metaloom.dashboards.knowledge_facts.panels import LearnedFacts, Panel
from metaloom.dashboards.knowledge_figures.axes import draw_bars, draw_histogram, draw_lines, draw_plane, draw_rows
from metaloom.dashboards.knowledge_figures.cells import draw_graph
from metaloom.dashboards.knowledge_figures.matrices import draw_heat, draw_images, draw_sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BESIDE = 3.6  # inches, of each panel that stands beside others
DRAW: dict[type[Any], "Callable[[Axes, Any], None]"] = {
    kinds.Lines: draw_lines,
    kinds.Bars: draw_bars,
    kinds.Histogram: draw_histogram,
    kinds.Plane: draw_plane,
    kinds.Rows: draw_rows,
    kinds.Heat: draw_heat,
    kinds.Sheet: draw_sheet,
    kinds.Images: draw_images,
    kinds.CellGraph: draw_graph,
}


def figure_of(facts: LearnedFacts) -> "Figure":
    """Draw the panels below one another, or side by side on the same axes."""
    if facts.beside:
        figure = canvas(BESIDE * len(facts.panels), BESIDE)
        grid = figure.subplots(1, len(facts.panels), sharex=True, sharey=True, squeeze=False)
        each = list(grid[0])
    else:
        heights = [size_of(panel)[1] for panel in facts.panels]
        figure = canvas(max(size_of(panel)[0] for panel in facts.panels), sum(heights))
        grid = figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
        each = [row[0] for row in grid]
    for axes, panel in zip(each, facts.panels, strict=True):
        DRAW[type(panel)](axes, panel)
    return figure


def size_of(panel: Panel) -> tuple[float, float]:
    """Return the width and the height of a panel, in inches."""
    match panel:
        case kinds.Bars(lying=True, names=names):
            return 7.0, 1.6 + 0.22 * len(names)
        case kinds.Rows(standing=True, names=names):
            return 1.5 + 0.9 * len(names), 3.8
        case kinds.Rows(names=names):
            return 6.0, 1.2 + 0.5 * len(names)
        case kinds.Sheet(rows=rows):
            return 8.0, 0.6 + 0.22 * len(rows)
        case kinds.Images(columns=columns, rows=rows):
            return 0.9 * len(columns) + 0.8, _height(rows, len(columns)) + 0.5
        case kinds.CellGraph(nodes=nodes):
            return 2.2 * len(nodes), 1.0 + 0.9 * len(nodes)
        case kinds.Heat(texts=texts, values=values) if texts:
            return max(5.0, 0.62 * values.shape[1]), 0.45 * len(values) + 1.2
        case kinds.Heat() | kinds.Plane():
            return 6.0, 4.5
    return 6.0, 3.6


def _height(rows: Sequence[tuple[str, Any]], columns: int) -> float:
    """Return the height of rows of pictures that are 0.9 inches wide."""
    height, width = rows[0][1].shape[1:3]
    return float(len(rows) * max(0.9 * min(height / width, 2.0), 0.25))
