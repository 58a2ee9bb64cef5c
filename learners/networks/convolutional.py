"""Convolutional networks: Conv-4 and ConvNet, which halve the image block by block, and residual networks."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Added, Int
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks import base
from metaloom.learners.networks.batch_norm import Normalization, normalized_convolution
from metaloom.learners.networks.pooled_convolution import Convolution
from metaloom.learners.tensors import Tensors

STAGES = 3  # of a ResNet
BLOCKS, LAYERS = 4, 3  # residual blocks of a ResNet-12, and the convolutions of each
INSTANCE_EPSILON = 1e-5  # torch's


class ConvBlocks(base.Network):
    """3x3 convolutions ``conv0``, ``conv1`` ... with a norm after each, and a head over the pixels that are left."""

    config: Any  # both have channels and blocks

    @property
    def halvings(self) -> int:
        """How many blocks halve the image."""
        return int(self.config.blocks)

    @property
    def places(self) -> int:
        return int(self.config.blocks)

    def layers(self) -> list[tuple[str, ...]]:
        return [(f"conv{block}", f"norm{block}") for block in range(self.config.blocks)]

    def halved(self, side: int) -> int:
        """Return a side of the image after a block that halves it."""
        return side // 2

    def feature_shape(self) -> tuple[int, ...]:
        height, width = self.task.inputs[1:]
        for _ in range(self.halvings):
            height, width = self.halved(height), self.halved(width)
        return self.config.channels, height, width

    def parameters(self, generator: Generator) -> Tensors:
        blocks, channels = self.config.blocks, self.config.channels
        inputs = base.image_channels(self.task, base.ARCHITECTURES.name_of(type(self)))
        sides = self.task.inputs[1:]
        _, height, width = self.feature_shape()
        base.check_halvings("blocks", self.halvings, sides, height * width)
        theta: Tensors = {}
        for block in range(blocks):
            theta |= base.conv_parameters(f"conv{block}", inputs if block == 0 else channels, channels, 3, generator)
            theta |= base.affine_parameters(f"norm{block}", channels)
        return theta | base.linear_parameters("head", channels * height * width, self.task.outputs, generator)


@dataclass(frozen=True)
class Conv4Config:
    """Four blocks of 3x3 convolution, batch norm, ReLU and halving.

    Attributes:
        channels: Channels of each block.
        blocks: How many blocks.
        pool: What halves the image: max pooling, or a stride of 2.
        halvings: How many of the blocks halve it, the first ones, at most all; null is all. The relation
            network's two keep maps of 7x7 of an image of 28x28.
    """

    channels: Annotated[int, Int(4, 256, log=True)] = 64
    blocks: Annotated[int, Int(1, 6)] = 4
    pool: Literal["max", "stride"] = "max"
    halvings: Annotated[int | None, Int(0, 6), Added()] = None

    def __post_init__(self) -> None:
        if self.halvings is not None and self.halvings > self.blocks:
            raise LearnerError(
                f"learner.architecture.halvings: got {self.halvings}, and there are {self.blocks} blocks to halve the "
                f"image; give at most {self.blocks}"
            )


@base.ARCHITECTURES.register("conv4")
class Conv4(ConvBlocks):
    """Vinyals et al., 2016, https://arxiv.org/abs/1606.04080, section 4.1.1; strided as in MAML's appendix A.1."""

    config: Conv4Config

    @property
    def halvings(self) -> int:
        return self.config.blocks if self.config.halvings is None else self.config.halvings

    def stride(self, block: int) -> int:
        """Return the stride of a block's convolution."""
        return 2 if self.config.pool == "stride" and block < self.halvings else 1

    def halved(self, side: int) -> int:
        return side // 2 if self.config.pool == "max" else (side + 1) // 2

    def norm_layers(self) -> list[str]:
        return [f"norm{block}" for block in range(self.config.blocks)]

    def largest_map(self, images: int) -> int | None:
        stride = self.stride(0)
        sides = ((side + stride - 1) // stride for side in self.task.inputs[1:])
        return images * self.config.channels * math.prod(sides)

    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        x = norm.arrange(x)
        for block in range(self.config.blocks):
            made = Convolution(x, theta[f"conv{block}.weight"], self.stride(block))
            gamma, beta = theta[f"norm{block}.weight"], theta[f"norm{block}.bias"]
            x = norm(f"norm{block}", made, gamma, beta, pool=self.config.pool == "max" and block < self.halvings)
            x = norm.between(block + 1, x).relu_()
        return x.flatten(1)


@dataclass(frozen=True)
class ConvNetConfig:
    """Blocks of 3x3 convolution, instance norm, ReLU and average pooling.

    Attributes:
        channels: Channels of each block.
        blocks: How many blocks.
    """

    channels: Annotated[int, Int(4, 256, log=True)] = 128
    blocks: Annotated[int, Int(1, 6)] = 3


@base.ARCHITECTURES.register("convnet")
class ConvNet(ConvBlocks):
    """The network of dataset condensation (Zhao, Mopuri and Bilen, 2021, https://arxiv.org/abs/2006.05929, 4.1).

    Its norm is over each channel of each example, so that no prediction depends on the batch.
    """

    config: ConvNetConfig

    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        for block in range(self.config.blocks):
            x = F.conv2d(x, theta[f"conv{block}.weight"], padding=1)
            x = instance_norm(x, theta[f"norm{block}.weight"], theta[f"norm{block}.bias"])
            x = F.avg_pool2d(F.relu(norm.between(block + 1, x)), 2)
        return x.flatten(1)


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Normalize each channel of each example [n, channels, height, width] over its pixels; differentiable twice."""
    variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    scale = weight[:, None, None] * torch.rsqrt(variance + INSTANCE_EPSILON)
    return (x - mean) * scale + bias[:, None, None]


@dataclass(frozen=True)
class ResNetConfig:
    """The size; n blocks make a ResNet-(6n + 2).

    Attributes:
        blocks: Residual blocks of each of the three stages.
        width: Channels of the first stage; each later stage has twice as many.
    """

    blocks: Annotated[int, Int(1, 18)] = 5
    width: Annotated[int, Int(4, 64, log=True)] = 16


@base.ARCHITECTURES.register("resnet")
class ResNet(base.Network):
    """He et al., 2016, https://arxiv.org/abs/1512.03385, section 4.2: the residual networks of small images.

    A stem, then stages that halve the image and double the channels, of blocks of two 3x3 convolutions.
    Where a stage begins, the shortcut takes every other pixel and fills the new channels with zeros (the paper's
    option A, which has no parameters), as Meta-Weight-Net's ResNet-32 does.
    """

    config: ResNetConfig

    @property
    def places(self) -> int:
        return len(self._layers())

    def layers(self) -> list[tuple[str, ...]]:
        return [("stem",), *((name,) for name, _, _ in self._layers())]

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
        theta = base.conv_norm_parameters("stem", base.image_channels(self.task, "resnet"), channels, 3, generator)
        for name, width, _ in self._layers():
            for layer, inputs in enumerate((channels, width)):
                theta |= base.conv_norm_parameters(f"{name}.{layer}", inputs, width, 3, generator)
            channels = width
        return theta | base.linear_parameters("head", channels, self.task.outputs, generator)

    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        x = normalized_convolution(theta, "stem", norm.arrange(x), norm).relu_()
        for place, (name, width, stride) in enumerate(self._layers(), start=1):
            inside = normalized_convolution(theta, f"{name}.0", x, norm, stride).relu_()
            x = normalized_convolution(theta, f"{name}.1", inside, norm) + shortcut(x, width, stride)
            x = norm.between(place, x).relu_()
        return x.mean((2, 3))


def shortcut(x: Tensor, channels: int, stride: int) -> Tensor:
    """Take every ``stride``-th pixel of [n, inputs, height, width], and put as many zero channels on either side."""
    if stride > 1:
        x = F.avg_pool2d(x, 1, stride)  # of one pixel: as x[:, :, ::2, ::2], but its gradient keeps the layout
    missing = channels - x.shape[1]
    return F.pad(x, (0, 0, 0, 0, missing // 2, missing - missing // 2)) if missing else x


@dataclass(frozen=True)
class ResNet12Config:
    """Width of the first of four residual blocks; the others double it."""

    width: Annotated[int, Int(4, 128, log=True)] = 64


@base.ARCHITECTURES.register("resnet12")
class ResNet12(base.Network):
    """Four residual blocks of three 3x3 convolutions (Lee et al., 2019, https://arxiv.org/abs/1904.03758).

    The larger network of few-shot image classification.
    """

    config: ResNet12Config

    @property
    def places(self) -> int:
        return BLOCKS

    def norm_layers(self) -> list[str]:
        return [f"block{block}.{part}.norm" for block in range(BLOCKS) for part in (*range(LAYERS), "skip")]

    def parameters(self, generator: Generator) -> Tensors:
        inputs = base.image_channels(self.task, "resnet12")
        theta: Tensors = {}
        for block in range(BLOCKS):
            width = self.config.width << block
            for layer in range(LAYERS):
                name = f"block{block}.{layer}"
                theta |= base.conv_norm_parameters(name, inputs if layer == 0 else width, width, 3, generator)
            theta |= base.conv_norm_parameters(f"block{block}.skip", inputs, width, 1, generator)
            inputs = width
        return theta | base.linear_parameters("head", inputs, self.task.outputs, generator)

    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        x = norm.arrange(x)
        for block in range(BLOCKS):
            skip = normalized_convolution(theta, f"block{block}.skip", x, norm)
            for layer in range(LAYERS):
                x = normalized_convolution(theta, f"block{block}.{layer}", x, norm)
                x = F.leaky_relu_(x, 0.1) if layer < LAYERS - 1 else x
            x = norm.between(block + 1, x + skip)
            x = F.max_pool2d(F.leaky_relu_(x, 0.1), 2, ceil_mode=True)
        return x.mean(dim=(2, 3))
