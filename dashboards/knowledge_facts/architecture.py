"""The cell that an architecture search has found, as a graph, and the shares of its operations."""

from collections import Counter

import torch

from metaloom.dashboards.knowledge_facts.base import FACTS, TrialKnowledge
from metaloom.dashboards.knowledge_facts.panels import CellGraph, Edge, Heat, LearnedFacts
from metaloom.learners.knowledge.cells import RelaxedCells, derive_genotype
from metaloom.learners.knowledge.genotypes import OPERATIONS, DiscreteCells, edges_of, nodes_of, parse_genotype


@FACTS.register("architecture.cell")
def cell(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return the genotype: the fixed one, or the one that the logits of relaxed cells give now, with their shares."""
    for network, phi in knowledge.members("architecture"):
        if isinstance(network, DiscreteCells):
            genotype = network.config.genotype
            return LearnedFacts("cell", _words(genotype, {}), (genotype_graph(genotype),))
        if isinstance(network, RelaxedCells):
            genotype, shares = derive_genotype(phi["alpha"]), chosen_shares(phi["alpha"])
            return LearnedFacts("cell", _words(genotype, shares), (genotype_graph(genotype, shares),))
    return None


@FACTS.register("architecture.shares")
@torch.no_grad()
def operation_shares(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return the share of every operation in each edge's mixture."""
    for _, phi in knowledge.learned("architecture", RelaxedCells):
        shares = torch.softmax(phi["alpha"].double(), -1)
        edges = edges_of(nodes_of(len(shares)))
        nodes = genotype_graph(derive_genotype(phi["alpha"])).nodes
        lines = tuple(f"{nodes[start]} to {nodes[end]}" for start, end in edges)
        entropy = -(shares * shares.clamp_min(1e-300).log2()).sum(-1)
        texts = tuple(tuple(f"{share:.2f}" for share in row) for row in shares.tolist())
        panel = Heat("", "operation", "edge", shares, "share", texts=texts, columns=OPERATIONS, lines=lines)
        caption = (
            f"The share of each of the {len(OPERATIONS)} operations in the mixture of each of the {len(edges)} edges. "
            f"An edge's choice holds {float(entropy.mean()):.2f} bits of doubt on average; "
            f"equal shares have {torch.tensor(float(len(OPERATIONS))).log2():.2f}."
        )
        return LearnedFacts("operation-shares", caption, (panel,))
    return None


def chosen_shares(alpha: torch.Tensor) -> dict[int, float]:
    """Return the share of each edge's derived operation, from logits [edges, operations]."""
    shares = torch.softmax(alpha.double(), -1)
    chosen = parse_genotype(derive_genotype(alpha))
    return {edge: float(shares[edge, OPERATIONS.index(operation)]) for edge, operation in enumerate(chosen)}


def genotype_graph(genotype: str, shares: dict[int, float] | None = None) -> CellGraph:
    """Return a cell such as ``conv3|skip|avg3`` as a graph, with the shares of its operations in a mixture, if any."""
    operations = parse_genotype(genotype)
    nodes = nodes_of(len(operations))
    names = ("in", *map(str, range(1, nodes - 1)), "out")
    arrows = zip(edges_of(nodes), operations, strict=True)
    edges = [Edge(*ends, operation, (shares or {}).get(index)) for index, (ends, operation) in enumerate(arrows)]
    return CellGraph("", names, tuple(edges))


def _words(genotype: str, shares: dict[int, float]) -> str:
    operations = parse_genotype(genotype)
    counts = ", ".join(f"{count} {operation}" for operation, count in Counter(operations).most_common())
    caption = f"The cell {genotype}: of its {len(operations)} edges {counts}."
    if shares:
        low, high = min(shares.values()), max(shares.values())
        caption += f" The chosen operations have shares from {low:.2f} to {high:.2f} of the mixture."
    return caption
