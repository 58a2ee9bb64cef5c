"""A chart of facts: their panels below one another or side by side, on the same axes as those that they are beside."""

from collections.abc import Sequence
from typing import Any

from metaloom.dashboards.charts import palette
from metaloom.dashboards.charts.base import Chart
from metaloom.dashboards.knowledge_charts import traces
from metaloom.dashboards.knowledge_charts.frames import Frame, frames, height_of, is_chart, ranges, scale_of, titled
from metaloom.dashboards.knowledge_charts.graphs import graph
from metaloom.dashboards.knowledge_charts.tables import table_of
from metaloom.dashboards.knowledge_facts.panels import (
    Bars,
    CellGraph,
    Heat,
    Histogram,
    LearnedFacts,
    Lines,
    Panel,
    Plane,
    Rows,
)

Drawn = tuple[list[traces.Trace], traces.Axis, traces.Axis]


def chart_of(
    title: str, facts: LearnedFacts, others: Sequence[LearnedFacts] = (), *, signed: bool = False
) -> Chart | None:
    """Draw the panels of facts that are charts; None if there is none.

    Args:
        title: Of the chart.
        facts: What is drawn.
        others: The facts of the same kind whose numbers the axes have to show too.
        signed: Whether a matrix has differences, with 0 in the middle of the colours.
    """
    panels = [panel for panel in facts.panels if is_chart(panel)]
    if not panels:
        return None
    beside = [[panel for panel in one.panels if is_chart(panel)] for one in (facts, *others)]
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"barmode": "overlay", "annotations": [], "height": height_of(facts, panels)}
    for index, (panel, frame) in enumerate(zip(panels, frames(facts, panels), strict=True)):
        everywhere = panels if facts.beside else []  # panels side by side share their axes
        same = [one[index] for one in beside if index < len(one) and type(one[index]) is type(panel)]
        _add(data, layout, panel, frame, [*same, *everywhere], signed=signed)
    table, cut = table_of(panels)
    return Chart(title, data, layout, table, cut)


def _add(
    data: list[dict[str, Any]],
    layout: dict[str, Any],
    panel: Panel,
    frame: Frame,
    same: Sequence[Panel],
    *,
    signed: bool,
) -> None:
    """Add a panel's traces and axes to a chart."""
    drawn, across, up = _drawn(panel, frame, same, signed=signed)
    names = _axis_names(panel)
    wide, high = ranges(same)
    x = {**titled(names[0], frame.across, f"y{frame.suffix}"), **({"range": wide} if wide else {}), **across}
    y = {**titled(names[1], frame.up, f"x{frame.suffix}"), **({"range": high} if high else {}), **up}
    layout[f"xaxis{frame.suffix}"], layout[f"yaxis{frame.suffix}"] = x, y
    data += [{**trace, **frame.place} for trace in drawn]
    if title := panel.title:
        place = {"x": frame.across[0], "y": frame.up[1], "xref": "paper", "yref": "paper"}
        layout["annotations"].append(
            {"text": title, **place, "xanchor": "left", "yanchor": "bottom", "showarrow": False}
        )
    level = getattr(panel, "level", None)
    if level is not None:
        standing = isinstance(panel, Lines) or (isinstance(panel, Rows) and panel.standing)
        layout.setdefault("shapes", []).append(_level(level, frame, lying=standing))


def _level(level: float, frame: Frame, *, lying: bool) -> dict[str, Any]:
    """Return a line across the whole panel at a number."""
    line = {"width": 1, "dash": "dot", "color": palette.GREY}
    if lying:
        along = {
            "xref": f"x{frame.suffix} domain",
            "x0": 0,
            "x1": 1,
            "yref": f"y{frame.suffix}",
            "y0": level,
            "y1": level,
        }
    else:
        along = {
            "yref": f"y{frame.suffix} domain",
            "y0": 0,
            "y1": 1,
            "xref": f"x{frame.suffix}",
            "x0": level,
            "x1": level,
        }
    return {"type": "line", "line": line, **along}


def _drawn(panel: Panel, frame: Frame, same: Sequence[Panel], *, signed: bool) -> Drawn:
    match panel:
        case Lines():
            return traces.lines(panel, frame)
        case Bars():
            return traces.bars(panel, frame)
        case Histogram():
            return traces.histogram(panel, frame)
        case Plane():
            return traces.plane(panel, frame)
        case Rows():
            return traces.rows(panel, frame)
        case Heat():
            return traces.heat(panel, frame, scale_of(same), signed=signed)
        case CellGraph():
            return graph(panel, frame)
    raise TypeError(f"{type(panel).__name__} is no chart")


def _axis_names(panel: Panel) -> tuple[str, str]:
    match panel:
        case Bars(lying=True):
            return panel.up, panel.across
        case Lines() | Bars() | Histogram() | Plane() | Rows() | Heat():
            return panel.across, panel.up
    return "", ""
