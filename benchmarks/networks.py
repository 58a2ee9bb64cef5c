"""Networks as their users write them, in torch's own modules.

All implementations share the parameter names (``conv0.weight``, ``norm0.bias``, ``head.weight``), so that
gradients can be compared entry by entry. No network here has a bias before its batch norm.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

Norm = Callable[[int], nn.Module]


def batch_norm(channels: int) -> nn.Module:
    """Return torch's own batch norm over the batch's statistics."""
    return nn.BatchNorm2d(channels, track_running_stats=False)


class Conv4(nn.Module):
    """Four blocks of convolution, batch norm, ReLU and max-pooling, as the papers and the peers' examples have it."""

    def __init__(self, outputs: int | None, norm: Norm = batch_norm, channels: int = 64, side: int = 28) -> None:
        super().__init__()
        for block in range(4):
            self.add_module(f"conv{block}", nn.Conv2d(channels if block else 1, channels, 3, padding=1, bias=False))
            self.add_module(f"norm{block}", norm(channels))
            side //= 2
        self.head = nn.Identity() if outputs is None else nn.Linear(channels * side * side, outputs)

    def forward(self, x: Tensor, **options: object) -> Tensor:
        """Map images [n, 1, side, side] to logits [n, outputs], or to features where there is no head."""
        for block in range(4):
            x = getattr(self, f"conv{block}")(x)
            x = F.max_pool2d(F.relu(getattr(self, f"norm{block}")(x)), 2)
        outputs: Tensor = self.head(x.flatten(1))
        return outputs


class SineMLP(nn.Module):
    """Finn's regression network: two hidden layers of 40."""

    def __init__(self) -> None:
        super().__init__()
        self.layer0, self.layer1, self.head = nn.Linear(1, 40), nn.Linear(40, 40), nn.Linear(40, 1)

    def forward(self, x: Tensor, **options: object) -> Tensor:
        """Map [n, 1] to [n, 1]."""
        outputs: Tensor = self.head(F.relu(self.layer1(F.relu(self.layer0(x)))))
        return outputs


class Layer(nn.Module):
    """A 3x3 or 1x1 convolution and its batch norm."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, stride: int = 1, *, affine: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs, affine=affine, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, inputs, height, width] to [n, outputs, height / stride, width / stride]."""
        outputs: Tensor = self.norm(self.conv(x))
        return outputs


class Block(nn.Module):
    """A residual block, whose shortcut is padded with zero channels where it changes the width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride, self.missing = (1, 0) if inputs == outputs else (2, outputs - inputs)
        self.add_module("0", Layer(inputs, outputs, stride=self.stride))
        self.add_module("1", Layer(outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, inputs, height, width] to [n, outputs, height / stride, width / stride]."""
        first, second = self.children()
        past = x[:, :, :: self.stride, :: self.stride]
        if self.missing:
            past = F.pad(past, (0, 0, 0, 0, self.missing // 2, self.missing // 2))
        return F.relu(second(F.relu(first(x))) + past)


class ResNet8(nn.Module):
    """He et al.'s network of small images with one block a stage."""

    def __init__(self, outputs: int, width: int = 16) -> None:
        super().__init__()
        self.stem = Layer(3, width)
        for stage in range(3):
            inputs = width << max(stage - 1, 0)
            self.add_module(f"stage{stage}", nn.ModuleDict({"block0": Block(inputs, width << stage)}))
        self.head = nn.Linear(4 * width, outputs)

    def forward(self, x: Tensor, **options: object) -> Tensor:
        """Map images [n, 3, height, width] to logits [n, outputs]."""
        x = F.relu(self.stem(x))
        for stage in range(3):
            x = getattr(self, f"stage{stage}")["block0"](x)
        outputs: Tensor = self.head(x.mean((2, 3)))
        return outputs


OPERATIONS = ("none", "skip", "conv1", "conv3", "avg3")  # NAS-Bench-201's


class Edge(nn.Module):
    """Every operation of an edge, as the DARTS repository's MixedOp."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Layer(channels, channels, 1, affine=False)
        self.conv3 = Layer(channels, channels, 3, affine=False)

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        """Return the mixture of the operations."""
        near = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        results = (x.mul(0.0), x, self.conv1(F.relu(x)), self.conv3(F.relu(x)), near)
        weighted = [share * one for share, one in zip(shares, results, strict=True)]
        return sum(weighted[1:], weighted[0])


class MixedCells(nn.Module):
    """A supernet of NAS-Bench-201's cells: 4 nodes, a halving between two cells."""

    def __init__(self, outputs: int, cells: int = 4, channels: int = 8, nodes: int = 4) -> None:
        super().__init__()
        self.cells = cells
        self.edges = [(source, target) for target in range(1, nodes) for source in range(target)]
        self.stem = Layer(3, channels)
        for cell in range(cells):
            edges = {f"edge{index}": Edge(channels) for index in range(len(self.edges))}
            self.add_module(f"cell{cell}", nn.ModuleDict(edges))
        self.head = nn.Linear(channels, outputs)

    def forward(self, x: Tensor, alpha: Tensor) -> Tensor:
        """Map images [n, 3, height, width] to logits [n, outputs], in the mixture of alpha [edges, operations]."""
        x, shares = self.stem(x), torch.softmax(alpha, -1)
        for cell in range(self.cells):
            x = F.avg_pool2d(x, 2) if cell else x
            nodes, edges = [x], getattr(self, f"cell{cell}")
            for index, (source, target) in enumerate(self.edges):
                sent = edges[f"edge{index}"](nodes[source], shares[index])
                nodes[target:] = [nodes[target] + sent] if target < len(nodes) else [sent]
            x = nodes[-1]
        outputs: Tensor = self.head(F.relu(x).mean((2, 3)))
        return outputs


def draw_logits(generator: Generator, edges: int = 6) -> dict[str, Tensor]:
    """Draw a supernet's logits; further apart than a search starts, so that the operations differ."""
    return {"alpha": 0.1 * torch.randn(edges, len(OPERATIONS), generator=generator)}
