"""What the inner loop minimizes on the support set; per example, so that weights can multiply it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.component import Component
from metaloom.learners.domains import Learned, Real
from metaloom.learners.episode import TaskShape
from metaloom.learners.registry import Registry
from metaloom.learners.task_kinds import LABELLED
from metaloom.learners.tensors import Tensors

LOSSES: Registry[type[Component]] = Registry("loss")


class Loss(Component, ABC):
    """A loss per example.

    Class attributes:
        serves: The kinds of task whose targets it takes, by name; ``labelled`` for all that have targets.
    """

    slot = "loss"
    needs_task = True
    serves: ClassVar[frozenset[str]]

    def __init__(self, config: object, task: TaskShape) -> None:
        super().__init__(config)
        self.task = task

    @abstractmethod
    def losses(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return one loss per example.

        Args:
            phi: This slot's part of phi.
            outputs: [n, ways] logits, or [n, targets] predictions.
            targets: [n] int64 labels, [n, ways] label distributions, or [n, targets] values.
        """


def expected(values: Tensor, targets: Tensor) -> Tensor:
    """Return each example's value at its label, [n], or the mean over its label distribution.

    Args:
        values: [n, ways].
        targets: [n] int64 labels, or [n, ways] label distributions.
    """
    if targets.is_floating_point():
        return (targets * values).sum(-1)
    return values.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True)
class CrossEntropyConfig:
    """The mass spread evenly over all classes (Szegedy et al., 2016, section 7)."""

    label_smoothing: Annotated[float | Learned, Real(0.0, 0.5)] = 0.0


@LOSSES.register("cross_entropy")
class CrossEntropy(Loss):
    """-(1 - s) log p_target - (s / ways) sum_k log p_k, with s the label smoothing."""

    Config = CrossEntropyConfig
    config: CrossEntropyConfig
    serves = frozenset({"classification"})

    def losses(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        log_p = F.log_softmax(outputs, dim=-1)
        hard = -expected(log_p, targets)
        smoothing = self.knob(phi, "label_smoothing")
        if isinstance(smoothing, float) and smoothing == 0.0:
            return hard
        return (1 - smoothing) * hard - smoothing * log_p.mean(-1)


@LOSSES.register("mse")
class MeanSquaredError(Loss):
    """The squared error, averaged over the target's dimensions."""

    serves = frozenset({"regression"})

    def losses(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean(-1)


@LOSSES.register("task")
class TaskLoss(Loss):
    """What the kind of task judges a query set by, example by example."""

    serves = frozenset({LABELLED})

    def losses(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.task.task_kind.losses(outputs, targets)
