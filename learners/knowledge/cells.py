r"""Which operations a network is made of: relaxed to a mixture that the hypergradient moves, or one genotype.

Liu, Simonyan and Yang, 2019 (DARTS), https://arxiv.org/abs/1806.09055, equations 1 and 2:

    node_j = sum_{i < j} o_ij(node_i),    o_ij(x) = sum_o softmax(alpha_ij)_o * o(x)

phi is alpha, one row of logits an edge, which all cells share. Afterwards every edge keeps its strongest
operation but ``none`` (section 2.4: a share of zero only scales an edge, so its strength says nothing).
GDAS (Dong and Yang, 2019, https://arxiv.org/abs/1910.04465, equations 5 and 6; ``relaxation: sampled``) computes one
operation an edge, drawn again for every pass, with Gumbel noise g and a temperature tau that falls:

    k = argmax_o (log softmax(alpha)_o + g_o),    h = softmax((log softmax(alpha) + g) / tau)
    o_ij(x) = (1 + (h_k - stop(h_k))) o_k(x)

The choice has no derivative; the gradient of alpha is a straight-through one, d h_k times what the operation does to
the loss: biased, and no central difference confirms it. Theta's is exact. PC-DARTS (Xu et al., 2020,
https://arxiv.org/abs/1907.05737, section 3) sends one channel in ``partial`` through the operations and the others
past them, and shares a node among its edges by softmax(beta), against the noise of such a mixture.

A mixture costs its operations (those of ``genotypes.py``) together. On NAS-Bench-201 the search collapses to skips:
measure it against random genotypes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.component import OUTER_STEP
from metaloom.learners.domains import Int, Real
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.genotypes import OPERATIONS, SEPARATOR, CellNetwork, edges_of
from metaloom.learners.networks.base import ARCHITECTURES
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.tensors import Tensors

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
    """Nodes of a cell (its input among them), cells with a halving in between, the width, and how it is relaxed.

    Attributes:
        relaxation: ``mixture`` computes every operation (DARTS), ``sampled`` one that is drawn (GDAS).
        temperature: tau at the first outer step of ``sampled``; falls evenly ...
        final_temperature: ... to this one ...
        annealing: ... within so many outer steps.
        partial: One channel in so many goes through the operations (PC-DARTS: 4).
        edge_normalization: Whether a node's edges share it by learned shares (PC-DARTS), not evenly.
        nodes: Nodes of a cell, its input among them.
        cells: Cells, with a halving of the image between two.
        channels: Channels of each cell.
    """

    nodes: Annotated[int, Int(2, 5)] = 3
    cells: Annotated[int, Int(1, 8)] = 1
    channels: Annotated[int, Int(4, 128, log=True)] = 16
    relaxation: Literal["mixture", "sampled"] = "mixture"
    temperature: Annotated[float, Real(1.0, 20.0, log=True, per=(), positive=True)] = 10.0
    final_temperature: Annotated[float, Real(0.05, 1.0, log=True, per=(), positive=True)] = 0.1
    annealing: Annotated[int, Int(1, 1_000_000, log=True)] = 300
    partial: Annotated[int, Int(1, 8)] = 1
    edge_normalization: bool = False

    def __post_init__(self) -> None:
        for name in ("temperature", "final_temperature", "annealing", "partial"):
            if getattr(self, name) <= 0:
                raise LearnerError(f"learner.architecture.{name} must be above 0, got {getattr(self, name)}")


@ARCHITECTURES.register("cells")
class RelaxedCells(CellNetwork):
    """phi is ``alpha`` [edges, operations], and ``beta`` [edges] where edges are normalized.

    Batch norms inside the operations have no scale of their own, with which they would take back what
    the mixture gives them (appendix A.1.1 of the DARTS paper).
    """

    Config = CellsConfig
    config: CellsConfig
    learns = True
    relaxed = True
    affine = False

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        """Draw logits that are nearly equal."""
        edges = len(self.edges())
        phi = {"alpha": LOGIT_DEVIATION * torch.randn(edges, len(OPERATIONS), generator=generator)}
        if self.config.edge_normalization:
            phi["beta"] = LOGIT_DEVIATION * torch.randn(edges, generator=generator)
        return phi

    def edges(self) -> list[tuple[int, int]]:
        return edges_of(self.config.nodes)

    def candidates(self, edge: int) -> tuple[str, ...]:
        return OPERATIONS

    @property
    def active(self) -> int:
        return max(self.config.channels // self.config.partial, 1)

    @property
    def random(self) -> bool:
        return self.config.relaxation == "sampled"

    @property
    def draws_layers(self) -> bool:
        return self.random

    @property
    def anneals(self) -> bool:
        return self.random

    @property
    def approximation(self) -> str:
        if not self.random:
            return ""
        return "the choice of an operation has no derivative, and counts by its relaxation's (relaxation: sampled)"

    def draw_noise(self, examples: Tensor, steps: int, generator: Generator, *, training: bool) -> Tensors:
        """Return Gumbel noise [steps + 1, edges, operations] while training; what is evaluated is not random."""
        if not training:
            return {}
        shape = (steps + 1, len(self.edges()), len(OPERATIONS))
        exponential = torch.empty(shape, device=generator.device).exponential_(generator=generator)
        return {"gumbel": -exponential.log()}

    def sampled(self, phi: Tensors, noise: Tensors) -> Tensors:
        """Return ``shares`` [edges, operations], and what share of its node each edge has: ``edges`` [edges]."""
        alpha = phi["alpha"]
        found = {"shares": torch.softmax(alpha, -1) if not self.random else self._choice(alpha, noise)}
        if "beta" in phi:
            found["edges"] = shares_of_nodes(phi["beta"], self.edges())
        return found

    def _choice(self, alpha: Tensor, noise: Tensors) -> Tensor:
        """Return 1 for the operation drawn on each edge, else 0, with the straight-through gradient."""
        if "gumbel" in noise:
            perturbed = torch.log_softmax(alpha, -1) + noise["gumbel"]
            soft, chosen = torch.softmax(perturbed / self._temperature(noise[OUTER_STEP]), -1), perturbed.argmax(-1)
        else:
            soft, chosen = torch.softmax(alpha, -1), strongest(alpha)
        hard = F.one_hot(chosen, len(OPERATIONS)).to(alpha.dtype)
        return hard * (1 + (soft - soft.detach()))

    def _temperature(self, outer_step: Tensor) -> Tensor:
        first, last = self.config.temperature, self.config.final_temperature
        return first + (last - first) * (outer_step / self.config.annealing).clamp(max=1)

    def edge(self, theta: Tensors, name: str, edge: int, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        active, past = x[:, : self.active], x[:, self.active :]
        sent = self._mixed(theta, name, phi["shares"][edge], active, norm)
        if past.shape[1]:
            sent = torch.cat([past, sent], 1)  # turned, so that other channels are next (the paper shuffles them)
        return sent if "edges" not in phi else phi["edges"][edge] * sent

    def _mixed(self, theta: Tensors, name: str, shares: Tensor, x: Tensor, norm: Normalization) -> Tensor:
        wanted: tuple[str, ...] = OPERATIONS
        if self.random and norm.fused:  # in a batched or traced pass the choice is no number: all are computed there
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
    return torch.cat([torch.softmax(one, 0) for one in logits])  # edges stand in the order of their targets
