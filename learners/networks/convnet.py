"""Convolutional blocks with instance norm: the network of dataset condensation."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
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
from metaloom.learners.tensors import Tensors

INSTANCE_EPSILON = 1e-5  # torch's


@dataclass(frozen=True)
class ConvNetConfig:
    """Blocks of 3x3 convolution, instance norm, ReLU and average pooling.

    Attributes:
        channels: Channels of each block.
        blocks: How many blocks.
    """

    channels: Annotated[int, Int(4, 256, log=True)] = 128
    blocks: Annotated[int, Int(1, 6)] = 3


@ARCHITECTURES.register("convnet")
class ConvNet(Network):
    """The network of dataset condensation (Zhao, Mopuri and Bilen, 2021, https://arxiv.org/abs/2006.05929, 4.1).

    Its norm is over each channel of each example, so that no prediction depends on the batch.
    """

    Config = ConvNetConfig
    config: ConvNetConfig

    def parameters(self, generator: Generator) -> Tensors:
        inputs, channels = image_channels(self.task, "convnet"), self.config.channels
        height, width = (side >> self.config.blocks for side in self.task.inputs[1:])
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
        for block in range(self.config.blocks):
            x = F.conv2d(x, theta[f"conv{block}.weight"], padding=1)
            x = instance_norm(x, theta[f"norm{block}.weight"], theta[f"norm{block}.bias"])
            x = F.avg_pool2d(F.relu(x), 2)
        return x.flatten(1)


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Normalize each channel of each example [n, channels, height, width] over its pixels; differentiable twice."""
    variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    scale = weight[:, None, None] * torch.rsqrt(variance + INSTANCE_EPSILON)
    return (x - mean) * scale + bias[:, None, None]
