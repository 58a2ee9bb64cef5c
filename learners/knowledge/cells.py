r"""Which operations a network is made of: relaxed to a mixture that the hypergradient moves, or one genotype.

Liu, Simonyan and Yang, 2019 (DARTS), https://arxiv.org/abs/1806.09055, equations 1 and 2:

    node_j = sum_{i < j} o_ij(node_i),    o_ij(x) = sum_o softmax(alpha_ij)_o * o(x)

phi is alpha, one row of logits an edge, which all cells share. Afterwards every edge keeps its strongest
operation but ``none`` (section 2.4: a share of zero only scales an edge, so its strength says nothing).
The five operations are those of NAS-Bench-201 (Dong and Yang, 2020, https://arxiv.org/abs/2001.00326);
three nodes have three edges and so 125 genotypes. A mixture costs its operations together. On
NAS-Bench-201 the search collapses to skips: measure it against random genotypes.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.base import Tensors
from metaloom.learners.batch_norm import Convolution, Normalization
from metaloom.learners.domains import Int, Word
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError, unknown
from metaloom.learners.networks import ARCHITECTURES, Network, conv_parameters, linear_parameters, norm_parameters

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


def derive_genotype(alpha: Tensor) -> str:
    """Keep the strongest operation of every edge but ``none``, from logits [edges, operations]."""
    strength = alpha.detach().clone()
    strength[:, OPERATIONS.index("none")] = -torch.inf
    return SEPARATOR.join(OPERATIONS[index] for index in strength.argmax(-1).tolist())


@dataclass(frozen=True)
class CellsConfig:
    """Nodes of a cell (its input among them), cells with a halving in between, and the width of all of them."""

    nodes: Annotated[int, Int(2, 5)] = 3
    cells: Annotated[int, Int(1, 8)] = 1
    channels: Annotated[int, Int(4, 128, log=True)] = 16


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

    def parameters(self, generator: Generator) -> Tensors:
        channels = self.config.channels
        theta = conv_parameters("stem.conv", self.image[0], channels, 3, generator)
        theta |= norm_parameters("stem.norm", channels)
        for cell in range(self.config.cells):
            for edge in range(len(self.edges())):
                for operation in self.candidates(edge):
                    if operation in KERNELS:
                        name, size = f"cell{cell}.edge{edge}.{operation}", KERNELS[operation]
                        theta |= conv_parameters(f"{name}.conv", channels, channels, size, generator)
                        theta |= norm_parameters(f"{name}.norm", channels) if self.affine else {}
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
        x = norm("stem.norm", stem.outputs(), theta["stem.norm.weight"], theta["stem.norm.bias"], stem)
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
    """Every edge is the mixture of all operations; phi is ``alpha`` [edges, operations].

    Batch norms inside the operations have no scale of their own, with which they would take back what
    the mixture gives them (appendix A.1.1 of the paper).
    """

    Config = CellsConfig
    config: CellsConfig
    learns = True
    affine = False

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        """Draw logits that are nearly equal."""
        shape = (len(self.edges()), len(OPERATIONS))
        return {"alpha": LOGIT_DEVIATION * torch.randn(shape, generator=generator)}

    def edges(self) -> list[tuple[int, int]]:
        return edges_of(self.config.nodes)

    def candidates(self, edge: int) -> tuple[str, ...]:
        return OPERATIONS

    def edge(self, theta: Tensors, name: str, edge: int, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        shares = torch.softmax(phi["alpha"][edge], -1)
        results = [
            share * self.operate(theta, name, operation, x, norm)
            for share, operation in zip(shares.unbind(), OPERATIONS, strict=True)
            if operation != "none"  # its share of zero
        ]
        return sum(results[1:], results[0])


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
    settings = dict(learner.get("architecture", {}))
    if settings.pop("kind", None) != "cells":
        raise LearnerError("outer.retrain_steps: only an architecture of relaxed cells is made discrete and retrained")
    settings.pop("nodes", None)
    genotype = derive_genotype(phi["architecture/alpha"])
    return {**learner, "architecture": {"kind": "genotype", "genotype": genotype, **settings}}
