"""Draws the panels of curves, bars and points on a pair of axes."""

from typing import TYPE_CHECKING, Any

import torch

from metaloom.dashboards.canvas import legend, name_axes
from metaloom.dashboards.knowledge_facts.panels import Bars, Histogram, Lines, NamedPoint, Plane, Points, Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES: dict[str, dict[str, Any]] = {
    "line": {},
    "dashed": {"linestyle": "--"},
    "thin": {"linewidth": 0.9, "alpha": 0.6},
    "points": {"marker": "o"},
    "step": {"linewidth": 2.0, "drawstyle": "steps-post"},
}
MOST_NAMED = 40  # curves of a legend
SIZES = {"o": 45, ".": 30, "X": 130}
SIDE = 0.3  # how far points of one name stand from its place


def draw_lines(axes: "Axes", panel: Lines) -> None:
    """Draw curves, a level and named points."""
    groups = list(dict.fromkeys(curve.group for curve in panel.curves if curve.group))
    for curve in panel.curves:
        colour: dict[str, Any] = {"color": f"C{groups.index(curve.group)}"} if curve.group else {}
        label = curve.name if curve.style != "thin" else None
        axes.plot(curve.x, curve.y, label=label, **STYLES[curve.style], **colour)
    if panel.level is not None:
        axes.axhline(panel.level, color="black", lw=0.5)
    if panel.linear is not None:
        axes.set_xscale("symlog", linthresh=panel.linear)
    _mark(axes, panel.marks)
    if panel.low is not None and panel.high is not None:
        axes.set_ylim(panel.low, panel.high)
    if panel.plane:
        axes.set_aspect("equal")
    name_axes(axes, panel.title, panel.across, panel.up)
    _named(axes)


def _mark(axes: "Axes", marks: tuple[NamedPoint, ...]) -> None:
    for mark in marks:
        size = 11 if mark.symbol == "*" else 5
        axes.plot([mark.x], [mark.y], mark.symbol, color="black", markersize=size, label=mark.name)


def _named(axes: "Axes") -> None:
    """Add a legend where there is more than one name."""
    _, labels = axes.get_legend_handles_labels()
    if 1 < len(labels) <= MOST_NAMED:
        legend(axes, columns=1 + len(labels) // 16)


def draw_bars(axes: "Axes", panel: Bars) -> None:
    """Draw standing or lying bars, with the range of each."""
    reach = None
    if panel.lows:
        ends = zip(panel.values, panel.lows, panel.highs, strict=True)
        below_above = [(max(value - low, 0.0), max(high - value, 0.0)) for value, low, high in ends]
        reach = [list(side) for side in zip(*below_above, strict=True)]
    places = range(len(panel.names))
    if panel.lying:
        axes.barh(places, panel.values, xerr=reach, capsize=2)
        axes.set_yticks(places, panel.names)
        axes.invert_yaxis()
        name_axes(axes, panel.title, panel.up, panel.across)
        return
    axes.bar(places, panel.values, yerr=reach, capsize=2)
    axes.set_xticks(places, panel.names, rotation=90 if len(panel.names) > 12 else 0)
    name_axes(axes, panel.title, panel.across, panel.up)


def draw_histogram(axes: "Axes", panel: Histogram) -> None:
    """Draw the counts of each group as steps, one behind the other."""
    for number, (name, counts) in enumerate(panel.groups):
        axes.stairs(counts, panel.edges, fill=True, alpha=0.6, color=f"C{number}", label=name)
    name_axes(axes, panel.title, panel.across, panel.up)
    _named(axes)


def draw_plane(axes: "Axes", panel: Plane) -> None:
    """Draw clouds of points, coloured by their classes, or grey where these are not known."""
    for cloud in panel.clouds:
        axes.scatter(
            cloud.x, cloud.y, marker=cloud.symbol, s=SIZES[cloud.symbol], label=cloud.name, **_of(cloud, panel)
        )
    name_axes(axes, panel.title, panel.across, panel.up)
    legend(axes)


def _of(cloud: Points, panel: Plane) -> dict[str, Any]:
    edge = {"edgecolors": "black", "linewidths": 0.8} if cloud.symbol != "." else {}
    if not cloud.classes:
        return {"color": "grey", **edge}
    return {"c": cloud.classes, "cmap": "tab20", "vmin": 0, "vmax": panel.ways - 1, **edge}


def draw_rows(axes: "Axes", panel: Rows) -> None:
    """Draw the numbers of each name as points in its row, or above its place."""
    for group, (name, rows) in enumerate(panel.groups):
        marker = "|" if name == "start" else "o"
        for place, values in enumerate(rows):
            label = name if place == 0 else ""
            style: dict[str, Any] = {"marker": marker, "linestyle": "", "color": f"C{group}", "label": label}
            if panel.standing:
                spread = torch.linspace(-SIDE, SIDE, len(values)) if len(values) > 1 else torch.zeros(1)
                axes.plot((place + spread).tolist(), values, markersize=3, **style)
            else:
                axes.plot(values, [place] * len(values), markersize=14 if marker == "|" else 6, **style)
    places = range(len(panel.names))
    if panel.standing:
        axes.set_xticks(places, panel.names, rotation=30, ha="right")
    else:
        axes.set_yticks(places, panel.names)
        axes.invert_yaxis()
    if panel.level is not None:
        (axes.axhline if panel.standing else axes.axvline)(panel.level, color="black", lw=0.8)
    name_axes(axes, panel.title, panel.across, panel.up)
    _named(axes)
