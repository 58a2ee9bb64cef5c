"""Multi-layer perceptrons, and the linear model."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Bounds, Choice
from metaloom.learners.networks.base import ARCHITECTURES, Network, linear_layers, linear_parameters
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.tensors import Tensors

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "tanh": torch.tanh, "silu": F.silu}


@dataclass(frozen=True)
class MLPConfig:
    """The hidden layers.

    Attributes:
        hidden: Widths of the hidden layers; an empty list is a linear model.
        activation: The function after each hidden layer.
    """

    hidden: tuple[Annotated[int, Bounds(at_least=1)], ...] = (40, 40)
    activation: Annotated[str, Choice(tuple(ACTIVATIONS))] = "relu"


@ARCHITECTURES.register("mlp")
class MLP(Network):
    """A multi-layer perceptron; images are flattened."""

    config: MLPConfig

    @property
    def places(self) -> int:
        return len(self.config.hidden)

    def batched_width(self) -> int | None:
        return max(self.config.hidden, default=0)

    def parameters(self, generator: Generator) -> Tensors:
        widths = [math.prod(self.task.inputs), *self.config.hidden]
        return linear_layers("layer", widths, generator) | linear_parameters(
            "head", widths[-1], self.task.outputs, generator
        )

    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        activation = ACTIVATIONS[self.config.activation]
        hidden = x.flatten(1)
        for index in range(len(self.config.hidden)):
            hidden = activation(F.linear(hidden, theta[f"layer{index}.weight"], theta[f"layer{index}.bias"]))
            hidden = norm.between(index + 1, hidden)
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
