r"""Which operations a network is made of: relaxed to a mixture that the hypergradient moves, or one genotype.

Liu, Simonyan and Yang, 2019 (DARTS), https://arxiv.org/abs/1806.09055, equations 1 and 2:

    node_j = sum_{i < j} o_ij(node_i),    o_ij(x) = sum_o softmax(alpha_ij)_o * o(x)

phi is alpha, one row of logits an edge, which all cells share. Afterwards every edge keeps its strongest
operation but ``none`` (section 2.4: a share of zero only scales an edge, so its strength says nothing).
GDAS (Dong and Yang, 2019, https://arxiv.org/abs/1910.04465, equations 5 and 6; ``relaxation: sampled``) computes one
operation an edge, drawn anew for every pass, with Gumbel noise g and a temperature tau that falls:

    k = argmax_o (log softmax(alpha)_o + g_o),    h = softmax((log softmax(alpha) + g) / tau)
    o_ij(x) = (1 + (h_k - stop(h_k))) o_k(x)

The choice has no derivative; the gradient of alpha is a straight-through one, d h_k times what the operation does to
the loss: biased, and no central difference confirms it. Theta's is exact. PC-DARTS (Xu et al., 2020,
https://arxiv.org/abs/1907.05737, section 3) sends one channel in ``partial`` through the operations and the others
past them, and shares a node among its edges by softmax(beta), against the noise of such a mixture.

The five operations are those of NAS-Bench-201 (Dong and Yang, 2020, https://arxiv.org/abs/2001.00326);
three nodes have three edges and so 125 genotypes. A mixture costs its operations together. On
NAS-Bench-201 the search collapses to skips: measure it against random genotypes.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.component import OUTER_STEP
from metaloom.learners.domains import Int, Real, Word
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError, unknown
from metaloom.learners.networks.base import ARCHITECTURES, Network, conv_parameters, linear_parameters, norm_parameters
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.convolution import Convolution
from metaloom.learners.tensors import Tensors

KERNELS = {"conv1": 1, "conv3": 3}  # the operations that have parameters, and their kernels' size
OPERATIONS = ("none", "skip", "conv1", "conv3", "avg3")
EDGES = (3, 6, 10, 1)  # of cells with 3, 4, 5 and 2 nodes
SEPARATOR = "|"
LOGIT_DEVIATION = 1e-3  # of the logits' start, the reference code's


def edges_of(nodes: int) -> list[tuple[int, int]]:
    """Return the edges (from, to) of a cell in the order of a genotype: by target, then by source."""
    return [(source, target) for target in range(1, nodes) for source in range(target)]


def parse_genotype(genotype: str) -> tuple[str, ...]:
    """Split ``conv3|skip|avg3`` into one operation an edge.

    Raises:
        LearnerError: An operation is unknown, or no number of nodes has so many edges.
    """
    operations = tuple(genotype.split(SEPARATOR))
    for operation in operations:
        if operation not in OPERATIONS:
            where = f"learner.architecture.genotype: '{genotype}'"
            raise LearnerError(f"{where}: {unknown('operation', operation, OPERATIONS)}")
    nodes = nodes_of(len(operations))
    if len(edges_of(nodes)) != len(operations):
        raise LearnerError(
            f"learner.architecture.genotype: '{genotype}' has {len(operations)} edges; a cell has 1, 3, 6 or 10 "
            "(of 2, 3, 4 or 5 nodes)"
        )
    return operations


def nodes_of(edges: int) -> int:
    """Return the number of nodes of the largest cell with at most ``edges`` edges."""
    return (1 + math.isqrt(1 + 8 * edges)) // 2


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


@dataclass(frozen=True)
class GenotypeConfig:
    """One operation an edge, as in ``conv3|skip|avg3``, and the size of the network; searched edge by edge."""

    genotype: Annotated[str, Word(OPERATIONS, EDGES, default="conv3", part="edge", separator=SEPARATOR)]
    cells: Annotated[int, Int(1, 8)] = 1
    channels: Annotated[int, Int(4, 128, log=True)] = 16

    def __post_init__(self) -> None:
        parse_genotype(self.genotype)


class CellNetwork(Network):
    """A stem, cells with a halving between them, and the mean over space: what mixture and genotype share."""

    config: CellsConfig | GenotypeConfig
    has_batch_norm = True
    affine = True

    def __init__(self, config: Any, task: TaskShape) -> None:
        super().__init__(config, task)
        self.image = self._image(task)

    def _image(self, task: TaskShape) -> tuple[int, int, int]:
        """Return channels, height, width; flat examples are square images of one channel."""
        if len(task.inputs) == 3:
            channels, height, width = task.inputs
        elif len(task.inputs) == 1 and math.isqrt(task.inputs[0]) ** 2 == task.inputs[0]:
            channels, height, width = 1, math.isqrt(task.inputs[0]), math.isqrt(task.inputs[0])
        else:
            raise LearnerError(
                "learner.architecture: cells read images [channels, height, width] or flattened square ones, "
                f"but this task's examples have shape {task.inputs}; use mlp"
            )
        if min(height, width) >> (self.config.cells - 1) == 0:
            raise LearnerError(
                f"learner.architecture.cells: {self.config.cells - 1} halvings leave nothing of "
                f"{height}x{width} images; use fewer"
            )
        return channels, height, width

    @abstractmethod
    def candidates(self, edge: int) -> tuple[str, ...]:
        """Return the operations of an edge."""

    @abstractmethod
    def edges(self) -> list[tuple[int, int]]:
        """Return the cell's edges."""

    @property
    def active(self) -> int:
        """How many channels go through an edge's operations."""
        return self.config.channels

    def parameters(self, generator: Generator) -> Tensors:
        channels, active = self.config.channels, self.active
        theta = conv_parameters("stem.conv", self.image[0], channels, 3, generator)
        theta |= norm_parameters("stem.norm", channels)
        for cell in range(self.config.cells):
            for edge in range(len(self.edges())):
                for operation in self.candidates(edge):
                    if operation in KERNELS:
                        name, size = f"cell{cell}.edge{edge}.{operation}", KERNELS[operation]
                        theta |= conv_parameters(f"{name}.conv", active, active, size, generator)
                        theta |= norm_parameters(f"{name}.norm", active) if self.affine else {}
        return theta | linear_parameters("head", channels, self.task.outputs, generator)

    def operate(self, theta: Tensors, name: str, operation: str, x: Tensor, norm: Normalization) -> Tensor:
        """Apply an operation to [n, channels, height, width]; the shape stays."""
        if operation == "none":
            return torch.zeros_like(x)
        if operation == "skip":
            return x
        if operation == "avg3":
            return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        kernel = theta[f"{name}.{operation}.conv.weight"]
        x = F.conv2d(F.relu(x), kernel, padding=kernel.shape[-1] // 2)
        layer = f"{name}.{operation}.norm"
        channels = x.shape[1]
        weight = theta[f"{layer}.weight"] if self.affine else x.new_ones(channels)
        bias = theta[f"{layer}.bias"] if self.affine else x.new_zeros(channels)
        return norm(layer, x, weight, bias)

    @abstractmethod
    def edge(self, theta: Tensors, name: str, edge: int, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        """Map a node along an edge; the shape stays."""

    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        stem = Convolution(norm.arrange(x.reshape(-1, *self.image)), theta["stem.conv.weight"])
        x = norm("stem.norm", stem, theta["stem.norm.weight"], theta["stem.norm.bias"])
        for cell in range(self.config.cells):
            x = F.avg_pool2d(x, 2) if cell else x
            nodes = [x]
            for index, (source, target) in enumerate(self.edges()):
                sent = self.edge(theta, f"cell{cell}.edge{index}", index, nodes[source], norm, phi)
                nodes[target:] = [nodes[target] + sent] if target < len(nodes) else [sent]
            x = nodes[-1]
        return F.relu(x).mean((2, 3))


@ARCHITECTURES.register("cells")
class RelaxedCells(CellNetwork):
    """phi is ``alpha`` [edges, operations], and ``beta`` [edges] where edges are normalized.

    Batch norms inside the operations have no scale of their own, with which they would take back what
    the mixture gives them (appendix A.1.1 of the DARTS paper).
    """

    Config = CellsConfig
    config: CellsConfig
    learns = True
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


def shares_of_nodes(beta: Tensor, edges: list[tuple[int, int]]) -> Tensor:
    """Return each edge's share of the node that it leads to, from logits [edges]: [edges]."""
    targets = [target for _, target in edges]
    logits = [beta[[index for index, one in enumerate(targets) if one == node]] for node in dict.fromkeys(targets)]
    return torch.cat([torch.softmax(one, 0) for one in logits])  # edges stand in the order of their targets


@ARCHITECTURES.register("genotype")
class DiscreteCells(CellNetwork):
    """The network of one genotype; nothing of it is learned by hypergradient."""

    Config = GenotypeConfig
    config: GenotypeConfig

    def __init__(self, config: Any, task: TaskShape) -> None:
        super().__init__(config, task)
        self.operations = parse_genotype(self.config.genotype)

    def edges(self) -> list[tuple[int, int]]:
        return edges_of(nodes_of(len(self.operations)))

    def candidates(self, edge: int) -> tuple[str, ...]:
        return (self.operations[edge],)

    def edge(self, theta: Tensors, name: str, edge: int, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        return self.operate(theta, name, self.operations[edge], x, norm)


def discretize(learner: Mapping[str, Any], phi: Tensors) -> dict[str, Any]:
    """Return a learner's settings with its relaxed cells made the genotype that phi says.

    Args:
        learner: The resolved learner section.
        phi: The whole of the meta-knowledge that it learned.

    Raises:
        LearnerError: It has no relaxed cells.
    """
    settings = learner.get("architecture", {})
    if settings.get("kind") != "cells":
        raise LearnerError("outer.retrain_steps: only an architecture of relaxed cells is made discrete and retrained")
    size = {name: settings[name] for name in ("cells", "channels") if name in settings}
    genotype = derive_genotype(phi["architecture/alpha"])
    return {**learner, "architecture": {"kind": "genotype", "genotype": genotype, **size}}
