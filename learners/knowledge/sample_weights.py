r"""How much each example of the inner loop counts: fixed, by its loss, its class or its number, or by a learned net.

The inner gradient is sum_i w_i grad l_i / n: the weight multiplies the example's
gradient and is not differentiated inside the step, as all these papers define it. The
hypergradient does see the weight, and how it depends on theta through the loss, so it
stays exact when weights are combined with other learned components over several steps
(the usual ``.detach()`` on the loss makes it wrong there by 2% to 76%).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.component import Component
from metaloom.learners.domains import Int, Learned, Real
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import linear_parameters
from metaloom.learners.registry import Registry
from metaloom.learners.task_kinds import ANY_KIND, LABELLED
from metaloom.learners.tensors import Tensors

WEIGHTINGS: Registry[type[Component]] = Registry("weighting")


class Examples(NamedTuple):
    """What a weighting may see of the inner loop's examples.

    Attributes:
        losses: [n].
        targets: [n] int64 labels, [n, ways] label distributions, or [n, targets] values.
        sample_ids: [n] int64, each example's id in the training set; None where they have none.
        alignment: Returns <grad l_i, grad L_query> of each example, [n], differentiable in phi and theta; None
            where the query set may not be looked at, as in evaluation.
    """

    losses: Tensor
    targets: Tensor
    sample_ids: Tensor | None = None
    alignment: Callable[[], Tensor] | None = None


class Weighting(Component, ABC):
    """A weight per example.

    Class attributes:
        numbered: Whether it needs ``Examples.sample_ids`` while training.
        serves: The kinds of task it can weigh the examples of, by name; ``labelled`` for all that have targets.
    """

    slot = "weighting"
    needs_task = True
    reaches_losses = False
    numbered: ClassVar[bool] = False
    serves: ClassVar[frozenset[str]] = frozenset({LABELLED})

    def __init__(self, config: object, task: TaskShape) -> None:
        super().__init__(config)
        self.task = task

    @property
    def normalizes(self) -> bool:
        """Whether a batch's weights are divided by their sum, rather than by their number."""
        return False

    def scaled(self, phi: Tensors, examples: Examples) -> Tensor:
        """Return the factor of each example's gradient, [n]: its weight over n, or over the sum of the weights."""
        weights = self.checked_weights(phi, examples)
        if not self.normalizes:
            return weights / examples.losses.shape[0]
        return weights / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)

    def checked_weights(self, phi: Tensors, examples: Examples) -> Tensor:
        """Return ``weights``; raises LearnerError if they are not one number per example."""
        weights = self.weights(phi, examples)
        if weights.shape != examples.losses.shape:
            kind = next((kind for kind, entry in WEIGHTINGS.items() if entry is type(self)), type(self).__name__)
            raise LearnerError(
                f"learner.{self.slot}: {kind} returned weights of shape {list(weights.shape)}; "
                f"wanted {list(examples.losses.shape)}, one per example"
            )
        return weights

    @abstractmethod
    def weights(self, phi: Tensors, examples: Examples) -> Tensor:
        """Return one weight per example, [n]."""


@WEIGHTINGS.register("uniform")
class Uniform(Weighting):
    """Every example counts 1."""

    serves = frozenset({ANY_KIND})

    def weights(self, phi: Tensors, examples: Examples) -> Tensor:
        return torch.ones_like(examples.losses)


@dataclass(frozen=True)
class FocalConfig:
    """How strongly well-classified examples are turned down."""

    gamma: Annotated[float | Learned, Real(0.0, 5.0)] = 2.0


@WEIGHTINGS.register("focal")
class Focal(Weighting):
    """(1 - p)^gamma with p = exp(-loss): Lin et al., 2017, https://arxiv.org/abs/1708.02002, equation 4.

    The weight stands in front of the gradient and is held constant within the step, where
    the paper differentiates through it: the same fixed points, a slightly smaller step.
    """

    Config = FocalConfig
    config: FocalConfig

    def weights(self, phi: Tensors, examples: Examples) -> Tensor:
        # the smallest base is 1e-6: below it the power's gradient in gamma would be infinite
        missed = (1 - torch.exp(-examples.losses)).clamp_min(1e-6)
        return torch.pow(missed, self.knob(phi, "gamma"))


@dataclass(frozen=True)
class MetaWeightNetConfig:
    """Width of the weight net's hidden layer, and whether a batch's weights are divided by their mean.

    Without the division every weight can grow together, which early in training lowers the clean loss;
    the sigmoid then saturates at 1 and never comes back.

    Attributes:
        hidden: Width of the weight net's hidden layer.
        normalize: Whether a batch's weights are divided by their mean.
    """

    hidden: Annotated[int, Int(4, 512, log=True)] = 100
    normalize: bool = True


@WEIGHTINGS.register("meta_weight_net")
class MetaWeightNet(Weighting):
    """V(loss) = sigmoid(W2 relu(W1 loss)): Shu et al., 2019, https://arxiv.org/abs/1902.07379, section 3.1."""

    Config = MetaWeightNetConfig
    config: MetaWeightNetConfig
    learns = True

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        hidden = self.config.hidden
        net = linear_parameters("layer0", 1, hidden, generator) | linear_parameters("layer1", hidden, 1, generator)
        # He-normal first layer and a zero output bias: the net starts near weight 1/2 for every loss
        net["layer0.weight"] = torch.randn(hidden, 1, generator=generator) * math.sqrt(2 / hidden)
        net["layer1.bias"] = torch.zeros(1)
        return net

    def weights(self, phi: Tensors, examples: Examples) -> Tensor:
        hidden = F.relu(F.linear(examples.losses.unsqueeze(-1), phi["layer0.weight"], phi["layer0.bias"]))
        return torch.sigmoid(F.linear(hidden, phi["layer1.weight"], phi["layer1.bias"])).squeeze(-1)

    @property
    def normalizes(self) -> bool:
        return self.config.normalize
