"""Four convolutional blocks: the network of few-shot image classification."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Generator, Tensor

from metaloom.learners.domains import Int
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import (
    ARCHITECTURES,
    Network,
    affine_parameters,
    conv_parameters,
    image_channels,
    linear_parameters,
)
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.convolution import Convolution
from metaloom.learners.tensors import Tensors


@dataclass(frozen=True)
class Conv4Config:
    """Four blocks of 3x3 convolution, batch norm, ReLU and halving.

    Attributes:
        channels: Channels of each block.
        blocks: How many blocks.
        pool: What halves the image: max pooling, or a stride of 2.
    """

    channels: Annotated[int, Int(4, 256, log=True)] = 64
    blocks: Annotated[int, Int(1, 6)] = 4
    pool: Literal["max", "stride"] = "max"


@ARCHITECTURES.register("conv4")
class Conv4(Network):
    """Vinyals et al., 2016, https://arxiv.org/abs/1606.04080, section 4.1.1; strided as in MAML's appendix A.1."""

    Config = Conv4Config
    config: Conv4Config

    def norm_layers(self) -> list[str]:
        return [f"norm{block}" for block in range(self.config.blocks)]

    def _side(self, side: int) -> int:
        for _ in range(self.config.blocks):
            side = side // 2 if self.config.pool == "max" else (side + 1) // 2
        return side

    def largest_map(self, images: int) -> int | None:
        stride = 1 if self.config.pool == "max" else 2
        return images * self.config.channels * math.prod((side + stride - 1) // stride for side in self.task.inputs[1:])

    def parameters(self, generator: Generator) -> Tensors:
        inputs, channels = image_channels(self.task, "conv4"), self.config.channels
        height, width = (self._side(side) for side in self.task.inputs[1:])
        if height * width == 0:
            raise LearnerError(
                f"learner.architecture.blocks: {self.config.blocks} halvings leave nothing of "
                f"{self.task.inputs[1]}x{self.task.inputs[2]} images; use fewer"
            )
        theta: Tensors = {}
        for block in range(self.config.blocks):
            theta |= conv_parameters(f"conv{block}", inputs if block == 0 else channels, channels, 3, generator)
            theta |= affine_parameters(f"norm{block}", channels)
        return theta | linear_parameters("head", channels * height * width, self.task.outputs, generator)

    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        stride = 1 if self.config.pool == "max" else 2
        x = norm.arrange(x)
        for block in range(self.config.blocks):
            made = Convolution(x, theta[f"conv{block}.weight"], stride)
            gamma, beta = theta[f"norm{block}.weight"], theta[f"norm{block}.bias"]
            x = norm(f"norm{block}", made, gamma, beta, pool=self.config.pool == "max")
            x = x.relu_()
        return x.flatten(1)
