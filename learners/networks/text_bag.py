"""A bag of words: the average of a text's embedded tokens, and one hidden layer.

    h = activation(W mean_t E[x_t] + b)

Iyyer et al., 2015, https://aclanthology.org/P15-1162, section 2, with one layer. The order of the tokens is lost. Cost:
of order length width for each example, so that it is the control of networks that read the order.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Choice, Int
from metaloom.learners.episode import TaskShape
from metaloom.learners.networks.base import ARCHITECTURES, linear_parameters
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.mlp import ACTIVATIONS
from metaloom.learners.networks.sequence import TextNetwork
from metaloom.learners.networks.tokens import PADDING, averaged, embedded, text_tokens
from metaloom.learners.tensors import Tensors


@dataclass(frozen=True)
class TextBagConfig:
    """The size of the network.

    Attributes:
        width: Numbers of each token's embedding.
        hidden: Width of the hidden layer.
        activation: The function after it.
    """

    width: Annotated[int, Int(1, 1024, log=True)] = 64
    hidden: Annotated[int, Int(1, 1024, log=True)] = 64
    activation: Annotated[str, Choice(tuple(ACTIVATIONS))] = "tanh"


@ARCHITECTURES.register("text_bag")
class TextBag(TextNetwork):
    """An embedding ``tokens``, and the layer ``hidden``."""

    config: TextBagConfig

    def __init__(self, config: TextBagConfig, task: TaskShape) -> None:
        super().__init__(config, task)
        self.tokens = text_tokens(task, "text_bag")

    def parameters(self, generator: Generator) -> Tensors:
        theta = {"tokens.weight": torch.randn(self.tokens, self.config.width, generator=generator)}
        theta |= linear_parameters("hidden", self.config.width, self.config.hidden, generator)
        return theta | linear_parameters("head", self.config.hidden, self.task.outputs, generator)

    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        bag = averaged(embedded(theta["tokens.weight"], x), x != PADDING)
        return ACTIVATIONS[self.config.activation](F.linear(bag, theta["hidden.weight"], theta["hidden.bias"]))
