"""The traces of each kind of panel, as Plotly draws them."""

from typing import Any

from metaloom.dashboards.charts import palette
from metaloom.dashboards.knowledge_charts.frames import Frame, symlog, symlog_ticks
from metaloom.dashboards.knowledge_facts.panels import (
    Bars,
    Heat,
    Histogram,
    Line,
    Lines,
    NamedPoint,
    Plane,
    Rows,
)

SYMBOLS = {"o": "circle", "*": "star", "x": "x", ".": "circle-open", "X": "diamond"}
SIZES = {"o": 9, ".": 7, "X": 14}
FEW = 3  # bars
# Without gaps Plotly draws a matrix as an image with a style of its own, which the pages' policy refuses.
GAPS = {"xgap": 0.5, "ygap": 0.5}
MOST_TEXTS = 400  # numbers of a matrix that are written into it

Trace = dict[str, Any]
Axis = dict[str, Any]


def lines(panel: Lines, frame: Frame) -> tuple[list[Trace], Axis, Axis]:
    """Return the traces of curves and named points, and what they ask of the axes."""
    groups = list(dict.fromkeys(curve.group or curve.name for curve in panel.curves))
    drawn = [_curve(curve, panel, groups.index(curve.group or curve.name)) for curve in panel.curves]
    drawn += [{**_mark(mark), "showlegend": frame.suffix == ""} for mark in panel.marks]
    across: Axis = {}
    up: Axis = {}
    if panel.linear is not None:
        largest = max((abs(value) for curve in panel.curves for value in curve.x), default=1.0)
        places, texts = symlog_ticks(panel.linear, largest)
        across = {"tickvals": places, "ticktext": texts}
    if panel.plane:
        up = {"scaleanchor": f"x{frame.suffix}", "scaleratio": 1}
    if panel.whole and max((len(curve.x) for curve in panel.curves), default=0) <= 12:
        across = {**across, "dtick": 1}
    return drawn, across, up


def _curve(curve: Line, panel: Lines, index: int) -> Trace:
    style = palette.trace_style(index)
    line, thin = dict(style["line"]), curve.style == "thin"
    if curve.style == "dashed":
        line["dash"] = "dash"
    if thin:
        line |= {"dash": "solid", "width": 1}
    if curve.style == "step":
        line |= {"shape": "hv", "width": 3}
    xs = list(curve.x) if panel.linear is None else [symlog(value, panel.linear) for value in curve.x]
    shown = {"customdata": list(curve.x)} if panel.linear is not None else {}
    value = "%{customdata:.4g}" if panel.linear is not None else "%{x:.4g}"
    return {
        "type": "scatter",
        "mode": "lines+markers" if curve.style == "points" else "lines",
        "name": curve.name,
        "x": xs,
        "y": list(curve.y),
        "line": line,
        "marker": style["marker"],
        "opacity": 0.6 if thin else 1.0,
        "showlegend": not thin,
        "hovertemplate": f"{value}, %{{y:.4g}}",
        **shown,
    }


def _mark(mark: NamedPoint) -> Trace:
    marker = {"symbol": SYMBOLS[mark.symbol], "size": 12, "color": palette.GREY, "line": {"width": 1}}
    return {"type": "scatter", "mode": "markers", "name": mark.name, "x": [mark.x], "y": [mark.y], "marker": marker}


def bars(panel: Bars, frame: Frame) -> tuple[list[Trace], Axis, Axis]:
    """Return the trace of bars, with the range of each."""
    ends: Trace = {}
    if panel.lows:
        below = [max(value - low, 0.0) for value, low in zip(panel.values, panel.lows, strict=True)]
        above = [max(high - value, 0.0) for value, high in zip(panel.values, panel.highs, strict=True)]
        axis = "error_x" if panel.lying else "error_y"
        ends = {axis: {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1}}
    names, values = list(panel.names), list(panel.values)
    along = {"x": values, "y": names, "orientation": "h"} if panel.lying else {"x": names, "y": values}
    shown = "%{y}: %{x:.4g}" if panel.lying else "%{x}: %{y:.4g}"
    marker = {"color": palette.BLUE}
    ends |= {"width": 0.4} if len(names) < FEW else {}  # one bar would fill the whole chart
    trace = {"type": "bar", "name": panel.up, **along, **ends, "marker": marker, "showlegend": False}
    named: Axis = {"type": "category"}
    lying = {**named, "autorange": "reversed"}
    return (
        [{**trace, "hovertemplate": f"{shown}<extra></extra>"}],
        {} if panel.lying else named,
        lying if panel.lying else {},
    )


def histogram(panel: Histogram, frame: Frame) -> tuple[list[Trace], Axis, Axis]:
    """Return the traces of counts, one group behind the other; their patterns differ too."""
    middles = [(low + high) / 2 for low, high in zip(panel.edges, panel.edges[1:], strict=False)]
    widths = [high - low for low, high in zip(panel.edges, panel.edges[1:], strict=False)]
    patterns = ("", "/", "x")
    drawn = [
        {
            "type": "bar",
            "name": name,
            "x": middles,
            "y": list(counts),
            "width": widths,
            "opacity": 0.65,
            "marker": {"color": palette.colour(index), "pattern": {"shape": patterns[index % len(patterns)]}},
            "hovertemplate": "%{x:.3g}: %{y}",
        }
        for index, (name, counts) in enumerate(panel.groups)
    ]
    return drawn, {}, {}


def plane(panel: Plane, frame: Frame) -> tuple[list[Trace], Axis, Axis]:
    """Return the traces of clouds of points: the colour is the class, the symbol the cloud."""
    drawn = []
    for cloud in panel.clouds:
        colours: Any = [palette.colour(one) for one in cloud.classes] if cloud.classes else palette.GREY
        texts = [f"class {one}" for one in cloud.classes] if cloud.classes else ""
        marker = {"symbol": SYMBOLS[cloud.symbol], "size": SIZES[cloud.symbol], "color": colours, "line": {"width": 1}}
        points = {"x": list(cloud.x), "y": list(cloud.y), "text": texts, "marker": marker}
        hover = "%{text} (%{x:.3g}, %{y:.3g})"
        drawn.append({"type": "scatter", "mode": "markers", "name": cloud.name, **points, "hovertemplate": hover})
    return drawn, {}, {}


def rows(panel: Rows, frame: Frame) -> tuple[list[Trace], Axis, Axis]:
    """Return the traces of the numbers of each name, one for each group."""
    drawn = []
    for index, (name, each) in enumerate(panel.groups):
        pairs = [(where, value) for where, values in zip(panel.names, each, strict=True) for value in values]
        names, values = [where for where, _ in pairs], [value for _, value in pairs]
        marker = {**palette.trace_style(index)["marker"], "size": 5 if panel.standing else 10}
        if name == "start":
            marker |= {"symbol": "line-ns-open", "size": 16, "color": palette.GREY}
        along = {"x": names, "y": values} if panel.standing else {"x": values, "y": names}
        drawn.append({"type": "scatter", "mode": "markers", "name": name, **along, "marker": marker})
    named: Axis = {"type": "category"}
    if panel.standing:
        return drawn, named, {}
    return drawn, {}, {**named, "autorange": "reversed"}


def heat(
    panel: Heat, frame: Frame, scale: tuple[float, float] | None, *, signed: bool
) -> tuple[list[Trace], Axis, Axis]:
    """Return the trace of a matrix; ``scale`` is that of all matrices beside it, ``signed`` puts 0 in the middle."""
    values = panel.values.detach().double()
    trace: Trace = {
        "type": "heatmap",
        "z": values.tolist(),
        "name": panel.title,
        "hoverongaps": False,
        **GAPS,
    }
    if panel.xs:
        trace |= {"x": list(panel.xs), "y": list(panel.ys)}
    if panel.columns:
        trace["x"] = list(panel.columns)
    if panel.lines:
        trace["y"] = list(panel.lines)
    if panel.texts and values.numel() <= MOST_TEXTS:
        trace |= {"text": [list(row) for row in panel.texts], "texttemplate": "%{text}"}
    low, high = scale if scale is not None else (0.0, 1.0)
    if signed:
        low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
    colours = palette.DIVERGING if signed else palette.SEQUENTIAL
    bar = {"title": {"text": panel.scale}, "y": sum(frame.up) / 2, "len": frame.up[1] - frame.up[0], "thickness": 12}
    trace |= {"zmin": low, "zmax": high if high > low else low + 1.0, "colorscale": colours, "colorbar": bar}
    trace["showscale"] = frame.across[1] == 1.0  # of panels side by side the last one shows the scale of all
    trace["hovertemplate"] = "%{x}, %{y}: %{z:.4g}<extra></extra>"
    up: Axis = {} if panel.ys else {"autorange": "reversed"}
    return [trace, *(_mark(mark) for mark in panel.marks)], {}, up
