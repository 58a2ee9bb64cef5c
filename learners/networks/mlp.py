"""Multi-layer perceptrons, and the linear model."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Choice
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import ARCHITECTURES, Network, linear_parameters
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.tensors import Tensors


@dataclass(frozen=True)
class MLPConfig:
    """Widths of the hidden layers; none at all is a linear model.

    Attributes:
        hidden: Widths of the hidden layers; an empty list is a linear model.
        activation: The function after each hidden layer.
    """

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

    def batched_width(self) -> int | None:
        return max(self.config.hidden, default=0)

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
