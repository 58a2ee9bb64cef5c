r"""What the inner loop trains on: the episode's support set, or examples that are themselves learned.

Wang, Zhu, Torralba and Efros, 2018, https://arxiv.org/abs/1811.10959, algorithm 1:

    theta_1 = theta_0 - eta grad l(x~, theta_0),    x~, eta <- x~, eta - alpha grad L(x_real, theta_1)

Holds for the initialization it was learned with (fixed), or more weakly for random ones.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Generator, Tensor

from metaloom.learners.component import Component
from metaloom.learners.domains import Int
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.registry import Registry
from metaloom.learners.tensors import Tensors

DATA: Registry[type[Component]] = Registry("data")


class TrainingData(Component, ABC):
    """What the inner loop trains on.

    Class attributes:
        numbered: Whether its examples are training samples, whose ids ``sample_ids`` returns.
    """

    slot = "data"
    needs_task = True
    numbered: ClassVar[bool] = False

    def __init__(self, config: object, task: TaskShape) -> None:
        super().__init__(config)
        self.task = task

    def select(self, episode: Episode, generator: Generator) -> Episode:
        """Return the episode with what of its support set is trained on, chosen before the inner loop begins."""
        return episode

    @abstractmethod
    def batch(self, phi: Tensors, episode: Episode) -> tuple[Tensor, Tensor]:
        """Return the inner loop's examples [n, *features] and targets."""

    def sample_ids(self, phi: Tensors, episode: Episode) -> Tensor | None:
        """Return each example's id in the training set, [n] int64; None if they are not its samples."""
        return None


@DATA.register("support")
class SupportSet(TrainingData):
    """The episode's own support set."""

    numbered = True

    def batch(self, phi: Tensors, episode: Episode) -> tuple[Tensor, Tensor]:
        return episode.support_x, episode.support_y

    def sample_ids(self, phi: Tensors, episode: Episode) -> Tensor | None:
        return episode.sample_ids


@DATA.register("whole_task")
class WholeTask(TrainingData):
    """All of a meta-training task's data, support and query together (Reptile); an evaluated task's support alone."""

    def batch(self, phi: Tensors, episode: Episode) -> tuple[Tensor, Tensor]:
        if not episode.training:
            return episode.support_x, episode.support_y
        return torch.cat([episode.support_x, episode.query_x]), torch.cat([episode.support_y, episode.query_y])


@dataclass(frozen=True)
class DistilledConfig:
    """How many examples of each class are learned, and whether their labels are too.

    Attributes:
        per_class: How many examples of each class are learned.
        learn_labels: Whether their labels are learned too.
    """

    per_class: Annotated[int, Int(1, 100)] = 1
    learn_labels: bool = False


@DATA.register("distilled")
class DistilledData(TrainingData):
    """phi is the examples themselves, drawn from N(0, 1); one-hot labels, or learned label logits."""

    Config = DistilledConfig
    config: DistilledConfig
    learns = True

    def __init__(self, config: object, task: TaskShape) -> None:
        super().__init__(config, task)
        if not task.task_kind.has_classes or not task.single_task:
            raise LearnerError("learner.data: distilled data belong to one classification task, such as digits")

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        count = self.config.per_class * self.task.outputs
        phi = {"examples": torch.randn(count, *self.task.inputs, generator=generator)}
        if self.config.learn_labels:
            # 4 puts 0.86 of the mass on the class at 10 classes: certain, yet not saturated
            phi["labels"] = 4.0 * self._one_hot(phi["examples"])
        return phi

    def _one_hot(self, examples: Tensor) -> Tensor:
        each = torch.eye(self.task.outputs, dtype=examples.dtype, device=examples.device)
        return each.repeat_interleave(self.config.per_class, dim=0)

    def batch(self, phi: Tensors, episode: Episode) -> tuple[Tensor, Tensor]:
        labels = torch.softmax(phi["labels"], -1) if self.config.learn_labels else self._one_hot(phi["examples"])
        return phi["examples"], labels
