"""The residual networks of small images (He et al., 2016, https://arxiv.org/abs/1512.03385, section 4.2)."""

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Int
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

STAGES = 3


@dataclass(frozen=True)
class ResNetConfig:
    """Residual blocks in each of three stages (n makes a ResNet-(6n + 2)), and the first stage's channels.

    Attributes:
        blocks: Residual blocks of each of the three stages.
        width: Channels of the first stage; each later stage has twice as many.
    """

    blocks: Annotated[int, Int(1, 18)] = 5
    width: Annotated[int, Int(4, 64, log=True)] = 16


@ARCHITECTURES.register("resnet")
class ResNet(Network):
    """A stem, then stages that halve the image and double the channels, of blocks of two 3x3 convolutions.

    Where a stage begins, the shortcut takes every other pixel and fills the new channels with zeros (the paper's
    option A, which has no parameters), as Meta-Weight-Net's ResNet-32 does.
    """

    Config = ResNetConfig
    config: ResNetConfig

    def norm_layers(self) -> list[str]:
        return ["stem.norm", *(f"{name}.{layer}.norm" for name, _, _ in self._layers() for layer in range(2))]

    def _layers(self) -> list[tuple[str, int, int]]:
        """Return every block's name, channels and stride."""
        return [
            (f"stage{stage}.block{block}", self.config.width << stage, 2 if stage > 0 and block == 0 else 1)
            for stage in range(STAGES)
            for block in range(self.config.blocks)
        ]

    def parameters(self, generator: Generator) -> Tensors:
        channels = self.config.width
        theta = conv_parameters("stem.conv", image_channels(self.task, "resnet"), channels, 3, generator)
        theta |= affine_parameters("stem.norm", channels)
        for name, width, _ in self._layers():
            for layer, inputs in enumerate((channels, width)):
                theta |= conv_parameters(f"{name}.{layer}.conv", inputs, width, 3, generator)
                theta |= affine_parameters(f"{name}.{layer}.norm", width)
            channels = width
        return theta | linear_parameters("head", channels, self.task.outputs, generator)

    def _conv_norm(self, theta: Tensors, name: str, x: Tensor, stride: int, norm: Normalization) -> Tensor:
        made = Convolution(x, theta[f"{name}.conv.weight"], stride)
        return norm(f"{name}.norm", made, theta[f"{name}.norm.weight"], theta[f"{name}.norm.bias"])

    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        x = self._conv_norm(theta, "stem", norm.arrange(x), 1, norm).relu_()
        for name, width, stride in self._layers():
            inside = self._conv_norm(theta, f"{name}.0", x, stride, norm).relu_()
            x = (self._conv_norm(theta, f"{name}.1", inside, 1, norm) + shortcut(x, width, stride)).relu_()
        return x.mean((2, 3))


def shortcut(x: Tensor, channels: int, stride: int) -> Tensor:
    """Take every ``stride``-th pixel of [n, inputs, height, width], and put as many zero channels on either side."""
    if stride > 1:
        x = F.avg_pool2d(x, 1, stride)  # of one pixel: as x[:, :, ::2, ::2], but its gradient keeps the layout
    missing = channels - x.shape[1]
    return F.pad(x, (0, 0, 0, 0, missing // 2, missing - missing // 2)) if missing else x
