"""Genotypes: one operation for each edge of a cell, and the network that they describe.

The five operations are those of NAS-Bench-201 (Dong and Yang, 2020, https://arxiv.org/abs/2001.00326); a cell of three
nodes has three edges and so 125 genotypes.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Int, Word
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError, unknown
from metaloom.learners.networks import base
from metaloom.learners.networks.batch_norm import Normalization, normalized_convolution
from metaloom.learners.tensors import Tensors

KERNELS = {"conv1": 1, "conv3": 3}  # the operations that have parameters, and their kernels' size
OPERATIONS = ("none", "skip", "conv1", "conv3", "avg3")
EDGES = (3, 6, 10, 1)  # of cells with 3, 4, 5 and 2 nodes
SEPARATOR = "|"


def edges_of(nodes: int) -> list[tuple[int, int]]:
    """Return the edges (from, to) of a cell in the order of a genotype: by target, then by source."""
    return [(source, target) for target in range(1, nodes) for source in range(target)]


def parse_genotype(genotype: str) -> tuple[str, ...]:
    """Split ``conv3|skip|avg3`` into one operation per edge; raises LearnerError for any other text."""
    operations, where = tuple(genotype.split(SEPARATOR)), f"learner.architecture.genotype: '{genotype}'"
    for operation in operations:
        if operation not in OPERATIONS:
            raise LearnerError(f"{where}: {unknown('operation', operation, OPERATIONS)}")
    if len(edges_of(nodes_of(len(operations)))) != len(operations):
        raise LearnerError(f"{where} has {len(operations)} edges; a cell has 1, 3, 6 or 10 (of 2, 3, 4 or 5 nodes)")
    return operations


def nodes_of(edges: int) -> int:
    """Return the number of nodes of the largest cell with at most ``edges`` edges."""
    return (1 + math.isqrt(1 + 8 * edges)) // 2


@dataclass(frozen=True)
class GenotypeConfig:
    """One operation per edge, as in ``conv3|skip|avg3``, and the network's size; searched edge by edge.

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


class CellNetwork(base.Network):
    """A stem, cells with a halving between them, and the mean over space; ``candidates`` are each edge's operations."""

    config: Any  # of cells or of one genotype: both have cells and channels
    affine = True

    def __init__(self, config: Any, task: TaskShape, candidates: Sequence[tuple[str, ...]]) -> None:
        super().__init__(config, task)
        image, halvings = base.image_shape(task), self.config.cells - 1
        if image is None:
            raise LearnerError(
                "learner.architecture: cells read images [channels, height, width] or flattened square ones, "
                f"but this task's examples have shape {task.inputs}; use mlp"
            )
        base.check_halvings("cells", halvings, image[1:], min(image[1:]) >> halvings)
        self.image, self.candidates = image, candidates
        self.active = int(self.config.channels)  # channels that go through an edge's operations
        self.edges = edges_of(nodes_of(len(candidates)))

    def norm_layers(self) -> list[str]:
        return ["stem.norm", *(f"{name}.norm" for name in self._convolutions())]

    def _convolutions(self) -> list[str]:
        """Return the names of the operations that have parameters."""
        return [
            f"cell{cell}.edge{edge}.{operation}"
            for cell in range(self.config.cells)
            for edge, operations in enumerate(self.candidates)
            for operation in operations
            if operation in KERNELS
        ]

    def parameters(self, generator: Generator) -> Tensors:
        channels, active = self.config.channels, self.active
        theta = base.conv_norm_parameters("stem", self.image[0], channels, 3, generator)
        for name in self._convolutions():
            size = KERNELS[name.rpartition(".")[2]]
            theta |= base.conv_parameters(f"{name}.conv", active, active, size, generator)
            theta |= base.affine_parameters(f"{name}.norm", active) if self.affine else {}
        return theta | base.linear_parameters("head", channels, self.task.outputs, generator)

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
        x = normalized_convolution(theta, "stem", norm.arrange(x.reshape(-1, *self.image)), norm)
        for cell in range(self.config.cells):
            x = F.avg_pool2d(x, 2) if cell else x
            nodes = [x]
            for index, (source, target) in enumerate(self.edges):
                sent = self.edge(theta, f"cell{cell}.edge{index}", index, nodes[source], norm, phi)
                nodes[target:] = [nodes[target] + sent] if target < len(nodes) else [sent]
            x = nodes[-1]
        return F.relu(x).mean((2, 3))


@base.ARCHITECTURES.register("genotype")
class DiscreteCells(CellNetwork):
    """The network of one genotype; nothing of it is learned by hypergradient."""

    config: GenotypeConfig

    def __init__(self, config: GenotypeConfig, task: TaskShape) -> None:
        self.operations = parse_genotype(config.genotype)
        super().__init__(config, task, [(operation,) for operation in self.operations])

    def edge(self, theta: Tensors, name: str, edge: int, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        return self.operate(theta, name, self.operations[edge], x, norm)
