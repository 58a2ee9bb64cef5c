"""Networks as pure functions of a parameter dictionary.

The head is the last linear layer, named ``head``; everything else is the body.
Convolutions before a batch norm have no bias: the mean would take it away again.
Max-pooling stands before the ReLU, with which it commutes (both are monotone), so
that the ReLU sees a quarter of the values.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.component import Component
from metaloom.learners.domains import Choice, Int
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.convolution import Convolution
from metaloom.learners.registry import Registry
from metaloom.learners.tensors import Tensors

HEAD = "head."
INSTANCE_EPSILON = 1e-5  # torch's
ARCHITECTURES: Registry[type[Component]] = Registry("architecture")


def linear_parameters(name: str, inputs: int, outputs: int, generator: Generator) -> Tensors:
    """Draw a linear layer, uniform in +-1/sqrt(inputs) as torch does."""
    bound = 1 / math.sqrt(inputs)
    weight = torch.empty(outputs, inputs).uniform_(-bound, bound, generator=generator)
    bias = torch.empty(outputs).uniform_(-bound, bound, generator=generator)
    return {f"{name}.weight": weight, f"{name}.bias": bias}


def conv_parameters(name: str, inputs: int, outputs: int, size: int, generator: Generator) -> Tensors:
    """Draw a convolution kernel, uniform in +-1/sqrt(fan-in) as torch does.

    Batch norm takes the scale away but not its effect on speed: He's kernels are 2.4 times as long, and
    Adam then turns them 2.4 times as slowly.
    """
    bound = 1 / math.sqrt(inputs * size * size)
    return {f"{name}.weight": torch.empty(outputs, inputs, size, size).uniform_(-bound, bound, generator=generator)}


def norm_parameters(name: str, channels: int) -> Tensors:
    """Return a batch norm's gamma (ones) and beta (zeros)."""
    return {f"{name}.weight": torch.ones(channels), f"{name}.bias": torch.zeros(channels)}


class Network(Component, ABC):
    """An architecture: ``init`` brings what of it is meta-knowledge, ``parameters`` what the inner loop moves."""

    slot = "architecture"
    has_batch_norm = False

    def __init__(self, config: object, task: TaskShape) -> None:
        super().__init__(config)
        self.task = task
        self.given: Tensors | None = None

    def starting_at(self, start: Tensors) -> Self:
        """Return the same network with these parameters to start from; without a head it starts from a head of zeros.

        Raises:
            LearnerError: They are of another network.
        """
        drawn = self.parameters(Generator())
        missing = [name for name in drawn if name not in start and not name.startswith(HEAD)]
        odd = [name for name in start if name not in drawn or start[name].shape != drawn[name].shape]
        if missing or odd:
            name = (missing or odd)[0]
            there, here = (tuple(one[name].shape) if name in one else "absent" for one in (start, drawn))
            raise LearnerError(
                f"learner.initialization.bundle: it holds another network: {name} is {there} there and {here} here; "
                "give the architecture, the ways and the inputs that the bundle was trained with"
            )
        other = copy(self)
        other.given = {name: start.get(name, torch.zeros_like(value)) for name, value in drawn.items()}
        return other

    def initial(self, generator: Generator) -> Tensors:
        """Return the parameters to start from: those it was given, or a draw."""
        drawn = self.parameters(generator)
        return drawn if self.given is None else {name: value.clone() for name, value in self.given.items()}

    @abstractmethod
    def parameters(self, generator: Generator) -> Tensors:
        """Draw theta: body and head."""

    @abstractmethod
    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        """Map [n, *inputs] to [n, features].

        Args:
            theta: The parameters.
            x: The examples.
            norm: Where batch norm finds its statistics.
            phi: The architecture's own part of phi (relaxed cells), as ``sampled`` returns it; empty otherwise.
        """

    def sampled(self, phi: Tensors, noise: Tensors) -> Tensors:
        """Return what ``features`` reads of phi in one pass: phi itself, or what chance has made of it.

        Args:
            phi: The architecture's own part of phi.
            noise: This pass's row of what ``draw_noise`` gave; empty where nothing was drawn.
        """
        return phi

    def outputs(
        self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors, noise: Tensors | None = None
    ) -> Tensor:
        """Map [n, *inputs] to logits or targets [n, outputs]."""
        features = self.features(theta, x, norm, self.sampled(phi, noise or {}))
        return F.linear(features, theta["head.weight"], theta["head.bias"])


@dataclass(frozen=True)
class MLPConfig:
    """Widths of the hidden layers; none at all is a linear model."""

    hidden: tuple[int, ...] = (40, 40)
    activation: Annotated[str, Choice(("relu", "tanh", "silu"))] = "relu"

    def __post_init__(self) -> None:
        for index, width in enumerate(self.hidden):
            if width < 1:
                raise LearnerError(f"learner.architecture.hidden[{index}] must be at least 1, got {width}")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "tanh": torch.tanh, "silu": F.silu}


@ARCHITECTURES.register("mlp")
class MLP(Network):
    """A multi-layer perceptron; images are flattened."""

    Config = MLPConfig
    config: MLPConfig

    def parameters(self, generator: Generator) -> Tensors:
        widths = [math.prod(self.task.inputs), *self.config.hidden]
        theta: Tensors = {}
        for index, (inputs, outputs) in enumerate(pairwise(widths)):
            theta |= linear_parameters(f"layer{index}", inputs, outputs, generator)
        return theta | linear_parameters("head", widths[-1], self.task.outputs, generator)

    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        activation = ACTIVATIONS[self.config.activation]
        hidden = x.flatten(1)
        for index in range(len(self.config.hidden)):
            hidden = activation(F.linear(hidden, theta[f"layer{index}.weight"], theta[f"layer{index}.bias"]))
        return hidden


@ARCHITECTURES.register("linear")
class Linear(Network):
    """x W^T, without a bias and from W = 0: the unknowns of a linear least-squares problem are its parameters."""

    def parameters(self, generator: Generator) -> Tensors:
        return {"head.weight": torch.zeros(self.task.outputs, math.prod(self.task.inputs))}

    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        return x.flatten(1)

    def outputs(
        self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors, noise: Tensors | None = None
    ) -> Tensor:
        return F.linear(self.features(theta, x, norm, phi), theta["head.weight"])


def image_channels(task: TaskShape, network: str) -> int:
    """Return the channels of an image task; raises LearnerError for anything but images."""
    if len(task.inputs) != 3:
        raise LearnerError(
            f"learner.architecture: {network} reads images [channels, height, width], "
            f"but this task's examples have shape {task.inputs}; use mlp"
        )
    return task.inputs[0]


@dataclass(frozen=True)
class Conv4Config:
    """Four blocks of 3x3 convolution, batch norm, ReLU and halving."""

    channels: Annotated[int, Int(4, 256, log=True)] = 64
    blocks: Annotated[int, Int(1, 6)] = 4
    pool: Literal["max", "stride"] = "max"


@ARCHITECTURES.register("conv4")
class Conv4(Network):
    """Vinyals et al., 2016, https://arxiv.org/abs/1606.04080, section 4.1.1; strided as in MAML's appendix A.1."""

    Config = Conv4Config
    config: Conv4Config
    has_batch_norm = True

    def _side(self, side: int) -> int:
        for _ in range(self.config.blocks):
            side = side // 2 if self.config.pool == "max" else (side + 1) // 2
        return side

    def largest_map(self, images: int) -> int:
        """Return how many values the first layer, the largest, makes of so many images."""
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
            theta |= norm_parameters(f"norm{block}", channels)
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


@dataclass(frozen=True)
class ConvNetConfig:
    """Blocks of 3x3 convolution, instance norm, ReLU and average pooling."""

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
            theta |= norm_parameters(f"norm{block}", channels)
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


@dataclass(frozen=True)
class ResNet12Config:
    """Width of the first of four residual blocks; the others double it."""

    width: Annotated[int, Int(4, 128, log=True)] = 64


@ARCHITECTURES.register("resnet12")
class ResNet12(Network):
    """Four residual blocks of three 3x3 convolutions (Lee et al., 2019, https://arxiv.org/abs/1904.03758)."""

    Config = ResNet12Config
    config: ResNet12Config
    has_batch_norm = True

    def _widths(self) -> Sequence[int]:
        return [self.config.width * factor for factor in (1, 2, 4, 8)]

    def parameters(self, generator: Generator) -> Tensors:
        inputs = image_channels(self.task, "resnet12")
        theta: Tensors = {}
        for block, channels in enumerate(self._widths()):
            for layer in range(3):
                name = f"block{block}.{layer}"
                theta |= conv_parameters(f"{name}.conv", inputs if layer == 0 else channels, channels, 3, generator)
                theta |= norm_parameters(f"{name}.norm", channels)
            theta |= conv_parameters(f"block{block}.skip.conv", inputs, channels, 1, generator)
            theta |= norm_parameters(f"block{block}.skip.norm", channels)
            inputs = channels
        return theta | linear_parameters("head", inputs, self.task.outputs, generator)

    def _conv_norm(self, theta: Tensors, name: str, x: Tensor, norm: Normalization) -> Tensor:
        kernel = theta[f"{name}.conv.weight"]
        made = Convolution(x, kernel, padding=kernel.shape[-1] // 2)
        return norm(f"{name}.norm", made, theta[f"{name}.norm.weight"], theta[f"{name}.norm.bias"])

    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        x = norm.arrange(x)
        for block in range(4):
            skip = self._conv_norm(theta, f"block{block}.skip", x, norm)
            for layer in range(3):
                x = self._conv_norm(theta, f"block{block}.{layer}", x, norm)
                x = F.leaky_relu_(x, 0.1) if layer < 2 else x
            x = F.max_pool2d(F.leaky_relu_(x + skip, 0.1), 2, ceil_mode=True)
        return x.mean(dim=(2, 3))
