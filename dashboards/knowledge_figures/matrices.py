"""Draws matrices, tables and pictures on a pair of axes."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from metaloom.dashboards.canvas import name_axes
from metaloom.dashboards.knowledge_facts.panels import Heat, Images, Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP = 0.08  # between pictures, of their width


def draw_heat(axes: "Axes", panel: Heat) -> None:
    """Draw a matrix as colours with their scale; as a surface where its places are known."""
    drawn: Any
    if panel.xs:
        drawn = axes.contourf(panel.xs, panel.ys, panel.values, levels=20)
    else:
        # a light scale under texts, which are black
        colours: dict[str, Any] = {"cmap": "YlOrRd", "vmin": 0.0} if panel.texts else {"cmap": "viridis"}
        drawn = axes.imshow(panel.values, aspect="auto", interpolation="nearest", **colours)
    axes.figure.colorbar(drawn, ax=axes, label=panel.scale)
    for row, texts in enumerate(panel.texts):
        for column, text in enumerate(texts):
            axes.text(column, row, text, ha="center", va="center", fontsize=6)
    if panel.columns:
        axes.set_xticks(range(len(panel.columns)), panel.columns)
    if panel.lines:
        axes.set_yticks(range(len(panel.lines)), panel.lines)
    for mark in panel.marks:
        axes.plot([mark.x], [mark.y], mark.symbol, color="white", label=mark.name)
    name_axes(axes, panel.title, panel.across, panel.up)
    axes.grid(visible=False)


def draw_sheet(axes: "Axes", panel: Sheet) -> None:
    """Draw a table of texts."""
    axes.set_axis_off()
    widths = panel.widths or (1 / len(panel.heads),) * len(panel.heads)
    rows = [list(row) for row in panel.rows]
    table = axes.table(rows, colLabels=list(panel.heads), loc="center", cellLoc="left", colWidths=widths)
    table.auto_set_font_size(False)
    table.set_fontsize(8)


def draw_images(axes: "Axes", panel: Images) -> None:
    """Draw pictures as one mosaic, with the names of its rows and columns."""
    whole, (height, width) = mosaic(panel)
    axes.imshow(whole, cmap="gray", vmin=0, vmax=1, aspect="auto" if height == 1 else "equal", interpolation="nearest")
    across, down = width + _gap(width), height + _gap(height)
    axes.set_xticks([width / 2 - 0.5 + across * place for place in range(len(panel.columns))], panel.columns)
    named = [(height / 2 - 0.5 + down * place, name) for place, (name, _) in enumerate(panel.rows) if name]
    axes.set_yticks([place for place, _ in named], [name for _, name in named])
    axes.tick_params(labelsize=8, length=0, labeltop=True, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def mosaic(panel: Images) -> tuple[Tensor, tuple[int, int]]:
    """Return all pictures on one white sheet [height, width] or [height, width, 3], and the size of one picture."""
    height, width = panel.rows[0][1].shape[1:3]
    channels = panel.rows[0][1].shape[3:]
    down, across = height + _gap(height), width + _gap(width)
    sheet = torch.ones(down * len(panel.rows) - _gap(height), across * len(panel.columns) - _gap(width), *channels)
    for row, (_, pictures) in enumerate(panel.rows):
        for column, picture in enumerate(pictures):
            top, left = row * down, column * across
            sheet[top : top + height, left : left + width] = picture
    return sheet, (height, width)


def _gap(size: int) -> int:
    return math.ceil(GAP * size)
