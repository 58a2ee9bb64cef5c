"""The cell that an architecture search has found, as a graph."""

from collections import Counter
from typing import TYPE_CHECKING

import torch

from metaloom.dashboards.canvas import panel
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Picture, TrialKnowledge
from metaloom.learners.knowledge.cells import RelaxedCells, derive_genotype
from metaloom.learners.knowledge.genotypes import OPERATIONS, DiscreteCells, edges_of, nodes_of, parse_genotype

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"none": "0.75", "skip": "tab:green", "conv1": "tab:orange", "conv3": "tab:blue", "avg3": "tab:purple"}
BEND = 0.32  # fraction of an edge's length, for each node that the edge passes
NODE_SIZE = 700


@DRAWERS.register("architecture.cell")
def cell(knowledge: TrialKnowledge) -> Picture | None:
    """Draw the genotype: the fixed one, or the one that the logits of relaxed cells give now, with their shares."""
    for network, phi in knowledge.members("architecture"):
        if isinstance(network, DiscreteCells):
            genotype = network.config.genotype
            return Picture("cell", _words(genotype, {}), genotype_figure(genotype))
        if isinstance(network, RelaxedCells):
            genotype, shares = derive_genotype(phi["alpha"]), chosen_shares(phi["alpha"])
            return Picture("cell", _words(genotype, shares), genotype_figure(genotype, shares))
    return None


def chosen_shares(alpha: torch.Tensor) -> dict[int, float]:
    """Return the share of each edge's derived operation, from logits [edges, operations]."""
    shares = torch.softmax(alpha.double(), -1)
    chosen = parse_genotype(derive_genotype(alpha))
    return {edge: float(shares[edge, OPERATIONS.index(operation)]) for edge, operation in enumerate(chosen)}


def genotype_figure(genotype: str, shares: dict[int, float] | None = None) -> "Figure":
    """Draw a cell such as ``conv3|skip|avg3``: nodes from its input to its output, and an arrow for each edge.

    Args:
        shares: Edge to the share of its operation in a mixture, which sets the arrow's width; full width without one.
    """
    import networkx

    operations = parse_genotype(genotype)
    edges = edges_of(nodes_of(len(operations)))
    graph = networkx.DiGraph(edges)
    layout = networkx.multipartite_layout(graph, subset_key={node: [node] for node in graph})
    places = {node: (float(x), float(y)) for node, (x, y) in layout.items()}
    figure, axes = panel(2.2 * len(places), 1.0 + 0.9 * len(places))
    for index, (edge, operation) in enumerate(zip(edges, operations, strict=True)):
        share = (shares or {}).get(index)
        _arrow(axes, places[edge[0]], places[edge[1]], edge[1] - edge[0] - 1, operation, share)
    last = max(places)
    across, up = [place[0] for place in places.values()], [place[1] for place in places.values()]
    axes.scatter(across, up, s=NODE_SIZE, c="white", edgecolors="black", zorder=3)
    for node, place in places.items():
        axes.annotate(
            {0: "in", last: "out"}.get(node, str(node)), place, ha="center", va="center", fontsize=9, zorder=4
        )
    axes.margins(0.12, 0.2)
    axes.set_aspect("equal", adjustable="datalim")  # arc3 bends curves in screen units, so both axes need one scale
    axes.set_axis_off()
    return figure


def _arrow(
    axes: "Axes", start: tuple[float, float], end: tuple[float, float], passed: int, operation: str, share: float | None
) -> None:
    """Draw one edge with its operation, bent around the nodes that it passes, to alternating sides."""
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


def _words(genotype: str, shares: dict[int, float]) -> str:
    operations = parse_genotype(genotype)
    counts = ", ".join(f"{count} {operation}" for operation, count in Counter(operations).most_common())
    caption = f"The cell {genotype}: of its {len(operations)} edges {counts}."
    if shares:
        low, high = min(shares.values()), max(shares.values())
        caption += f" The chosen operations have shares from {low:.2f} to {high:.2f} of the mixture."
    return caption
