r"""Which operations a network is made of: relaxed to a mixture that the hypergradient moves, or one genotype.

Liu, Simonyan and Yang, 2019 (DARTS), https://arxiv.org/abs/1806.09055, equations 1 and 2:

    node_j = sum_{i < j} o_ij(node_i),    o_ij(x) = sum_o softmax(alpha_ij)_o * o(x)

phi is alpha, one row of logits per edge, which all cells share. Afterwards each edge keeps its strongest operation
other than ``none`` (section 2.4: ``none`` only scales an edge down, so its strength does not matter). GDAS (Dong and
Yang, 2019, https://arxiv.org/abs/1910.04465, equations 5 and 6; ``relaxation: sampled``) computes one operation per
edge, drawn again for each pass, with Gumbel noise g and a falling temperature tau:

    k = argmax_o (log softmax(alpha)_o + g_o),    h = softmax((log softmax(alpha) + g) / tau)
    o_ij(x) = (1 + (h_k - stop(h_k))) o_k(x)

The choice has no derivative; the gradient of alpha is a straight-through one, d h_k times the operation's effect on the
loss: it is biased, and differs from a central difference. Theta's is exact. PC-DARTS (Xu et al., 2020,
https://arxiv.org/abs/1907.05737, section 3) sends one channel in ``partial`` through the operations and the others past
them, and weighs a node's edges by softmax(beta), against the noise of such a mixture.

A mixture costs as much as all its operations (those of ``genotypes.py``). On NAS-Bench-201 the search collapses to
skips: compare it with random genotypes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Generator, Tensor

from metaloom.learners.component import OUTER_STEP
from metaloom.learners.domains import Bounds, Int, Real
from metaloom.learners.episode import TaskShape
from metaloom.learners.knowledge.genotypes import OPERATIONS, SEPARATOR, CellNetwork, edges_of
from metaloom.learners.networks.base import ARCHITECTURES
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.tensors import Tensors, one_hot

LOGIT_DEVIATION = 1e-3  # of the logits' start, the reference code's


def strongest(alpha: Tensor) -> Tensor:
    """Return the strongest operation of every edge but ``none``, from logits [edges, operations]: [edges]."""
    without = torch.tensor([-torch.inf if one == "none" else 0.0 for one in OPERATIONS], device=alpha.device)
    return (alpha.detach() + without).argmax(-1)


def derive_genotype(alpha: Tensor) -> str:
    """Keep the strongest operation of every edge but ``none``, from logits [edges, operations]."""
    return SEPARATOR.join(OPERATIONS[index] for index in strongest(alpha).tolist())


@dataclass(frozen=True)
class CellsConfig:
    """The size of the network, and how its operations are relaxed.

    Attributes:
        relaxation: ``mixture`` computes every operation (DARTS), ``sampled`` one that is drawn (GDAS).
        temperature: tau at the first outer step of ``sampled``; it falls linearly ...
        final_temperature: ... to this one ...
        annealing: ... within this many outer steps.
        partial: One channel in this many goes through the operations (PC-DARTS: 4).
        edge_normalization: Whether a node's edges share it by learned shares (PC-DARTS), not evenly.
        nodes: Nodes of a cell, its input among them.
        cells: Cells, with a halving of the image between two.
        channels: Channels of each cell.
    """

    nodes: Annotated[int, Int(2, 5)] = 3
    cells: Annotated[int, Int(1, 8)] = 1
    channels: Annotated[int, Int(4, 128, log=True)] = 16
    relaxation: Literal["mixture", "sampled"] = "mixture"
    temperature: Annotated[float, Real(1.0, 20.0, log=True, per=(), positive=True), Bounds(above=0)] = 10.0
    final_temperature: Annotated[float, Real(0.05, 1.0, log=True, per=(), positive=True), Bounds(above=0)] = 0.1
    annealing: Annotated[int, Int(1, 1_000_000, log=True)] = 300
    partial: Annotated[int, Int(1, 8)] = 1
    edge_normalization: bool = False


@ARCHITECTURES.register("cells")
class RelaxedCells(CellNetwork):
    """phi is ``alpha`` [edges, operations], and ``beta`` [edges] where edges are normalized.

    Batch norms inside the operations have no scale of their own, which would undo the mixture's weights (appendix A.1.1
    of the DARTS paper).
    """

    config: CellsConfig
    learns = True
    relaxed = True
    affine = False

    def __init__(self, config: CellsConfig, task: TaskShape) -> None:
        super().__init__(config, task, [OPERATIONS] * len(edges_of(config.nodes)))
        self.active = max(config.channels // config.partial, 1)

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        """Draw logits that are nearly equal."""
        edges = len(self.edges)
        phi = {"alpha": LOGIT_DEVIATION * torch.randn(edges, len(OPERATIONS), generator=generator)}
        if self.config.edge_normalization:
            phi["beta"] = LOGIT_DEVIATION * torch.randn(edges, generator=generator)
        return phi

    @property
    def random(self) -> bool:
        return self.config.relaxation == "sampled"

    draws_layers = anneals = random

    @property
    def approximation(self) -> str:
        if not self.random:
            return ""
        return "the choice of an operation has no derivative; its relaxation's is taken (relaxation: sampled)"

    def draw_noise(self, examples: Tensor, steps: int, generator: Generator, *, training: bool) -> Tensors:
        """Return Gumbel noise [steps + 1, edges, operations] while training; evaluation is not random."""
        if not training:
            return {}
        shape = (steps + 1, len(self.edges), len(OPERATIONS))
        exponential = torch.empty(shape, device=generator.device).exponential_(generator=generator)
        return {"gumbel": -exponential.log()}

    def sampled(self, phi: Tensors, noise: Tensors) -> Tensors:
        """Return ``shares`` [edges, operations], and each edge's share of its node: ``edges`` [edges]."""
        alpha = phi["alpha"]
        found = {"shares": torch.softmax(alpha, -1) if not self.random else self._choice(alpha, noise)}
        if "beta" in phi:
            found["edges"] = shares_of_nodes(phi["beta"], self.edges)
        return found

    def _choice(self, alpha: Tensor, noise: Tensors) -> Tensor:
        """Return 1 for the operation drawn on each edge, else 0, with the straight-through gradient."""
        if "gumbel" in noise:
            perturbed = torch.log_softmax(alpha, -1) + noise["gumbel"]
            first, last = self.config.temperature, self.config.final_temperature
            temperature = first + (last - first) * (noise[OUTER_STEP] / self.config.annealing).clamp(max=1)
            soft, chosen = torch.softmax(perturbed / temperature, -1), perturbed.argmax(-1)
        else:
            soft, chosen = torch.softmax(alpha, -1), strongest(alpha)
        hard = one_hot(chosen, len(OPERATIONS), alpha)
        return hard * (1 + (soft - soft.detach()))

    def edge(self, theta: Tensors, name: str, edge: int, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        active, past = x[:, : self.active], x[:, self.active :]
        sent = self._mixed(theta, name, phi["shares"][edge], active, norm)
        if past.shape[1]:
            sent = torch.cat([past, sent], 1)  # rotated, so that other channels are next (the paper shuffles them)
        return sent if "edges" not in phi else phi["edges"][edge] * sent

    def _mixed(self, theta: Tensors, name: str, shares: Tensor, x: Tensor, norm: Normalization) -> Tensor:
        wanted: tuple[str, ...] = OPERATIONS
        if self.random and norm.fused:  # a batched or traced pass cannot read the choice: it computes all of them
            wanted = (OPERATIONS[int(shares.argmax())],)
        results = [
            shares[OPERATIONS.index(operation)] * self.operate(theta, name, operation, x, norm)
            for operation in wanted
            if operation != "none"  # its share of zero
        ]
        return sum(results[1:], results[0]) if results else torch.zeros_like(x)

    @classmethod
    def discretized(cls, settings: Mapping[str, Any], phi: Tensors) -> dict[str, Any]:
        size = {name: settings[name] for name in ("cells", "channels") if name in settings}
        return {"kind": "genotype", "genotype": derive_genotype(phi["alpha"]), **size}


def shares_of_nodes(beta: Tensor, edges: list[tuple[int, int]]) -> Tensor:
    """Return each edge's share of the node that it leads to, from logits [edges]: [edges]."""
    targets = [target for _, target in edges]
    logits = [beta[[index for index, one in enumerate(targets) if one == node]] for node in dict.fromkeys(targets)]
    return torch.cat([torch.softmax(one, 0) for one in logits])  # edges are in the order of their targets
