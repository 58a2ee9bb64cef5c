"""Residual blocks of three convolutions: the larger network of few-shot image classification."""

from collections.abc import Sequence
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

BLOCKS, LAYERS = 4, 3  # residual blocks, and the convolutions of each


@dataclass(frozen=True)
class ResNet12Config:
    """Width of the first of four residual blocks; the others double it."""

    width: Annotated[int, Int(4, 128, log=True)] = 64


@ARCHITECTURES.register("resnet12")
class ResNet12(Network):
    """Four residual blocks of three 3x3 convolutions (Lee et al., 2019, https://arxiv.org/abs/1904.03758)."""

    Config = ResNet12Config
    config: ResNet12Config

    def norm_layers(self) -> list[str]:
        return [f"block{block}.{part}.norm" for block in range(BLOCKS) for part in (*range(LAYERS), "skip")]

    def _widths(self) -> Sequence[int]:
        return [self.config.width * factor for factor in (1, 2, 4, 8)]

    def parameters(self, generator: Generator) -> Tensors:
        inputs = image_channels(self.task, "resnet12")
        theta: Tensors = {}
        for block, channels in enumerate(self._widths()):
            for layer in range(LAYERS):
                name = f"block{block}.{layer}"
                theta |= conv_parameters(f"{name}.conv", inputs if layer == 0 else channels, channels, 3, generator)
                theta |= affine_parameters(f"{name}.norm", channels)
            theta |= conv_parameters(f"block{block}.skip.conv", inputs, channels, 1, generator)
            theta |= affine_parameters(f"block{block}.skip.norm", channels)
            inputs = channels
        return theta | linear_parameters("head", inputs, self.task.outputs, generator)

    def _conv_norm(self, theta: Tensors, name: str, x: Tensor, norm: Normalization) -> Tensor:
        kernel = theta[f"{name}.conv.weight"]
        made = Convolution(x, kernel, padding=kernel.shape[-1] // 2)
        return norm(f"{name}.norm", made, theta[f"{name}.norm.weight"], theta[f"{name}.norm.bias"])

    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        x = norm.arrange(x)
        for block in range(BLOCKS):
            skip = self._conv_norm(theta, f"block{block}.skip", x, norm)
            for layer in range(LAYERS):
                x = self._conv_norm(theta, f"block{block}.{layer}", x, norm)
                x = F.leaky_relu_(x, 0.1) if layer < LAYERS - 1 else x
            x = F.max_pool2d(F.leaky_relu_(x + skip, 0.1), 2, ceil_mode=True)
        return x.mean(dim=(2, 3))
