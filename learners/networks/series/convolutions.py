r"""Convolutions over time: blocks of filters of one length, or of several lengths side by side.

With one length the fully convolutional network of Wang et al., 2017, https://arxiv.org/abs/1611.06455, section II.B;
with several lengths the blocks of ConvTimeNet (Kashiparekh et al., 2019, https://arxiv.org/abs/1904.12546, section III,
whose filters are 4, 8, 16, 32 and 64 steps long):

    block(x) = ReLU(norm([F_1 * x, ..., F_k * x])) (+ x),    features = mean over time of the last block

A step that was not observed is 0 in every block, as the padding is, and counts neither in batch norm nor in the mean.
So features do not depend on padding. Cost: the product of two blocks' channels, the length and the steps of filters.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Bounds, Int
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks import base
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.series.observed import (
    masked_statistics,
    mean_over_time,
    only_observed,
    series_channels,
    split_observed,
)
from metaloom.learners.tensors import Tensors


@dataclass(frozen=True)
class Conv1dConfig:
    """Blocks of convolution over time, batch norm and ReLU.

    Attributes:
        channels: Filters of each length in a block.
        blocks: How many blocks.
        lengths: Steps of a filter; of several numbers a block has filters of each length side by side.
        residual: Whether the inputs of every block but the first are added to its outputs.
    """

    channels: Annotated[int, Int(4, 256, log=True)] = 32
    blocks: Annotated[int, Int(1, 8)] = 3
    lengths: tuple[Annotated[int, Bounds(at_least=1)], ...] = (5,)
    residual: bool = False

    def __post_init__(self) -> None:
        if not self.lengths or len(set(self.lengths)) < len(self.lengths):
            given = list(self.lengths)
            raise LearnerError(f"learner.architecture.lengths: got {given}; give one or more numbers, each once")


@base.ARCHITECTURES.register("conv1d")
class Conv1d(base.Network):
    """Layers ``conv0.LENGTH`` and ``norm0``, ``conv1.LENGTH`` ... and a head over the mean over time."""

    config: Conv1dConfig
    any_length = True

    @property
    def places(self) -> int:
        return self.config.blocks

    @property
    def width(self) -> int:
        """The channels of a block: of all its lengths together."""
        return self.config.channels * len(self.config.lengths)

    def norm_layers(self) -> list[str]:
        return [f"norm{block}" for block in range(self.config.blocks)]

    def largest_map(self, images: int) -> int | None:
        return images * self.width * self.task.inputs[-1]

    def parameters(self, generator: Generator) -> Tensors:
        inputs = series_channels(self.task, "conv1d")
        theta: Tensors = {}
        for block in range(self.config.blocks):
            for length in self.config.lengths:
                bound = 1 / (inputs * length) ** 0.5  # as torch draws it
                kernel = torch.empty(self.config.channels, inputs, length)
                theta[f"conv{block}.{length}.weight"] = kernel.uniform_(-bound, bound, generator=generator)
            theta |= base.affine_parameters(f"norm{block}", self.width)
            inputs = self.width
        return theta | base.linear_parameters("head", self.width, self.task.outputs, generator)

    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        hidden, observed = split_observed(x, self.task)
        for block in range(self.config.blocks):
            kernels = [theta[f"conv{block}.{length}.weight"] for length in self.config.lengths]
            made = torch.cat([same_length(hidden, kernel) for kernel in kernels], 1)
            made = F.relu(self._normalized(theta, f"norm{block}", made, observed, norm))
            made = made + hidden if self.config.residual and block > 0 else made
            hidden = only_observed(norm.between(block + 1, made), observed)
        return mean_over_time(hidden, observed)

    def _normalized(
        self, theta: Tensors, layer: str, x: Tensor, observed: Tensor | None, norm: Normalization
    ) -> Tensor:
        gamma, beta = theta[f"{layer}.weight"], theta[f"{layer}.bias"]
        if observed is None:
            return norm(layer, x, gamma, beta)
        return norm.by(layer, x, gamma, beta, lambda: masked_statistics(x, observed))


def same_length(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve [n, inputs, length] with filters [channels, inputs, steps], padded so that the length stays."""
    steps = kernel.shape[-1]
    return F.conv1d(F.pad(x, ((steps - 1) // 2, steps // 2)), kernel)
