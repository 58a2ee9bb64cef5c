"""Genotypes: one operation for each edge of a cell, and the network that it describes.

The five operations are those of NAS-Bench-201 (Dong and Yang, 2020, https://arxiv.org/abs/2001.00326);
three nodes have three edges and so 125 genotypes.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Int, Word
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError, unknown
from metaloom.learners.networks.base import (
    ARCHITECTURES,
    Network,
    affine_parameters,
    conv_parameters,
    linear_parameters,
)
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.convolution import Convolution
from metaloom.learners.tensors import Tensors

KERNELS = {"conv1": 1, "conv3": 3}  # the operations that have parameters, and their kernels' size
OPERATIONS = ("none", "skip", "conv1", "conv3", "avg3")
EDGES = (3, 6, 10, 1)  # of cells with 3, 4, 5 and 2 nodes
SEPARATOR = "|"


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


@dataclass(frozen=True)
class GenotypeConfig:
    """One operation an edge, as in ``conv3|skip|avg3``, and the size of the network; searched edge by edge.

    Attributes:
        genotype: The operation of each edge, joined by `|`.
        cells: Cells, with a halving of the image between two.
        channels: Channels of each cell.
    """

    genotype: Annotated[str, Word(OPERATIONS, EDGES, default="conv3", part="edge", separator=SEPARATOR)]
    cells: Annotated[int, Int(1, 8)] = 1
    channels: Annotated[int, Int(4, 128, log=True)] = 16

    def __post_init__(self) -> None:
        parse_genotype(self.genotype)


class CellNetwork(Network):
    """A stem, cells with a halving between them, and the mean over space: what mixture and genotype share."""

    config: Any  # of cells or of one genotype: both have cells and channels
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

    def norm_layers(self) -> list[str]:
        return ["stem.norm", *(f"{name}.norm" for name in self._convolutions())]

    def _convolutions(self) -> list[str]:
        """Return the names of the operations that have parameters."""
        return [
            f"cell{cell}.edge{edge}.{operation}"
            for cell in range(self.config.cells)
            for edge in range(len(self.edges()))
            for operation in self.candidates(edge)
            if operation in KERNELS
        ]

    @property
    def active(self) -> int:
        """How many channels go through an edge's operations."""
        return int(self.config.channels)

    def parameters(self, generator: Generator) -> Tensors:
        channels, active = self.config.channels, self.active
        theta = conv_parameters("stem.conv", self.image[0], channels, 3, generator)
        theta |= affine_parameters("stem.norm", channels)
        for name in self._convolutions():
            size = KERNELS[name.rpartition(".")[2]]
            theta |= conv_parameters(f"{name}.conv", active, active, size, generator)
            theta |= affine_parameters(f"{name}.norm", active) if self.affine else {}
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
