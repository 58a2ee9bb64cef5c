"""The traces of a cell: its nodes, and its edges as curves with the names of their operations."""

from typing import Any

from metaloom.dashboards.charts import palette
from metaloom.dashboards.knowledge_charts.frames import Frame
from metaloom.dashboards.knowledge_facts.panels import CellGraph, Edge

OPERATIONS = ("none", "skip", "conv1", "conv3", "avg3")
COLOURS = (palette.GREY, palette.GREEN, palette.ORANGE, palette.BLUE, palette.PINK)
BEND = 0.32  # of an edge's length, for each node that it passes
POINTS = 24  # of a curve


def graph(panel: CellGraph, frame: Frame) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """Return the traces of the edges, of their texts and of the nodes; the width of an edge is its share."""
    paths = [path(edge) for edge in panel.edges]
    drawn: list[dict[str, Any]] = [_edge(edge, xs, ys) for edge, (xs, ys) in zip(panel.edges, paths, strict=True)]
    middles = [(xs[POINTS // 2], ys[POINTS // 2]) for xs, ys in paths]
    texts = [edge.operation if edge.share is None else f"{edge.operation} {edge.share:.2f}" for edge in panel.edges]
    drawn.append(_texts([x for x, _ in middles], [y for _, y in middles], texts, "text"))
    count = len(panel.nodes)
    nodes = _texts([float(one) for one in range(count)], [0.0] * count, list(panel.nodes), "markers+text")
    nodes |= {"marker": {"size": 34, "color": "white", "line": {"width": 2, "color": palette.GREY}}}
    nodes |= {"textfont": {"color": "black"}}
    hidden = {"visible": False}
    return [*drawn, nodes], {**hidden, "range": [-0.3, count - 0.7]}, hidden


def path(edge: Edge) -> tuple[list[float], list[float]]:
    """Return the points of an edge, bent around the nodes that it passes, to alternating sides."""
    length, passed = edge.end - edge.start, edge.end - edge.start - 1
    peak = 2 * BEND * passed * length * (1 if passed % 2 else -1) / 2
    ways = [step / POINTS for step in range(POINTS + 1)]
    # a quadratic curve whose control point lies above the middle
    return [edge.start + length * way for way in ways], [2 * way * (1 - way) * peak for way in ways]


def _edge(edge: Edge, xs: list[float], ys: list[float]) -> dict[str, Any]:
    place = OPERATIONS.index(edge.operation) if edge.operation in OPERATIONS else 0
    share = 1.0 if edge.share is None else edge.share
    dash = "dash" if edge.operation == "none" else "solid"
    line = {"color": COLOURS[place], "dash": dash, "width": 1 + 5 * share}
    text = f"{edge.start} to {edge.end}: {edge.operation}"
    text += "" if edge.share is None else f", share {edge.share:.3f}"
    before, after = POINTS * 9 // 10, POINTS - POINTS * 9 // 10  # the arrow stands before the node, which hides the end
    sizes = [0] * before + [14] + [0] * after
    arrow = {"symbol": ["circle"] * before + ["arrow"] + ["circle"] * after, "angleref": "previous", "size": sizes}
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": text,
        "x": xs,
        "y": ys,
        "line": line,
        "marker": {**arrow, "color": COLOURS[place]},
        "showlegend": False,
        "hovertemplate": f"{text}<extra></extra>",
    }


def _texts(xs: list[float], ys: list[float], texts: list[str], mode: str) -> dict[str, Any]:
    place = "middle center" if "markers" in mode else "top center"
    own = {"x": xs, "y": ys, "text": texts, "textposition": place}
    return {"type": "scatter", "mode": mode, "showlegend": False, "hoverinfo": "skip", **own}
