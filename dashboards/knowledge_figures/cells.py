"""Draws the cell that an architecture search has found."""

from typing import TYPE_CHECKING

from metaloom.dashboards.knowledge_facts.panels import CellGraph, Edge

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"none": "0.75", "skip": "tab:green", "conv1": "tab:orange", "conv3": "tab:blue", "avg3": "tab:purple"}
BEND = 0.32  # fraction of an edge's length, for each node that the edge passes
NODE_SIZE = 700


def draw_graph(axes: "Axes", panel: CellGraph) -> None:
    """Draw nodes from the input to the output, and an arrow for each edge, as wide as its operation's share."""
    import networkx

    graph = networkx.DiGraph([(edge.start, edge.end) for edge in panel.edges])
    layout = networkx.multipartite_layout(graph, subset_key={node: [node] for node in graph})
    places = {node: (float(x), float(y)) for node, (x, y) in layout.items()}
    for edge in panel.edges:
        _arrow(axes, places[edge.start], places[edge.end], edge)
    across, up = [place[0] for place in places.values()], [place[1] for place in places.values()]
    axes.scatter(across, up, s=NODE_SIZE, c="white", edgecolors="black", zorder=3)
    for node, place in places.items():
        axes.annotate(panel.nodes[node], place, ha="center", va="center", fontsize=9, zorder=4)
    axes.margins(0.12, 0.2)
    axes.set_aspect("equal", adjustable="datalim")  # arc3 bends curves in screen units, so both axes need one scale
    axes.set_axis_off()


def _arrow(axes: "Axes", start: tuple[float, float], end: tuple[float, float], edge: Edge) -> None:
    """Draw one edge with its operation, bent around the nodes that it passes, to alternating sides."""
    passed, operation, share = edge.end - edge.start - 1, edge.operation, edge.share
    bend = BEND * passed * (1 if passed % 2 else -1)
    style = {
        "arrowstyle": "-|>",
        "connectionstyle": f"arc3,rad={bend}",
        "color": COLOURS[operation],
        "linestyle": "--" if operation == "none" else "-",
        "linewidth": 1.0 + 4.0 * (1.0 if share is None else share),
        "shrinkA": 14,
        "shrinkB": 14,
    }
    axes.annotate("", end, start, arrowprops=style)
    # The curve's middle is half way to its control point, which arc3 offsets by rad times the length.
    across, up = end[0] - start[0], end[1] - start[1]
    middle = ((start[0] + end[0] + bend * up) / 2, (start[1] + end[1] - bend * across) / 2)
    text = operation if share is None else f"{operation} {share:.2f}"
    box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    axes.annotate(text, middle, ha="center", va="center", fontsize=8, bbox=box, zorder=5)
    axes.update_datalim([middle])
