"""What the inner loop minimizes on the support set; per example, so that weights can multiply it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.base import Tensors
from metaloom.learners.domains import Learned, Real
from metaloom.learners.knowledge.slots import Component
from metaloom.learners.registry import Registry

LOSSES: Registry[type[Component]] = Registry("loss")


class Loss(Component, ABC):
    """A loss per example."""

    slot = "loss"

    @abstractmethod
    def losses(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return one loss per example.

        Args:
            phi: This slot's part of phi.
            outputs: [n, ways] logits, or [n, targets] predictions.
            targets: [n] int64 labels, [n, ways] label distributions, or [n, targets] values.
        """


@dataclass(frozen=True)
class CrossEntropyConfig:
    """The mass spread evenly over all classes (Szegedy et al., 2016, section 7)."""

    label_smoothing: Annotated[float | Learned, Real(0.0, 0.5)] = 0.0


@LOSSES.register("cross_entropy")
class CrossEntropy(Loss):
    """-(1 - s) log p_target - (s / ways) sum_k log p_k, with s the label smoothing."""

    Config = CrossEntropyConfig
    config: CrossEntropyConfig

    def losses(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        log_p = F.log_softmax(outputs, dim=-1)
        if targets.is_floating_point():
            hard = -(targets * log_p).sum(-1)
        else:
            hard = -log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        smoothing = self.knob(phi, "label_smoothing")
        if isinstance(smoothing, float) and smoothing == 0.0:
            return hard
        return (1 - smoothing) * hard - smoothing * log_p.mean(-1)


@LOSSES.register("mse")
class MeanSquaredError(Loss):
    """The squared error, averaged over the target's dimensions."""

    def losses(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean(-1)
