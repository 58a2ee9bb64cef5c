r"""What the inner loop trains on: the episode's support set, or examples that are themselves learned.

Wang, Zhu, Torralba and Efros, 2018, https://arxiv.org/abs/1811.10959, algorithm 1:

    theta_1 = theta_0 - eta grad l(x~, theta_0),    x~, eta <- x~, eta - alpha grad L(x_real, theta_1)

What is learned holds for the initialization that it was learned with (fixed), or, more weakly, for random ones.

Matched data are distilled examples that are compared with the real ones by what they do to a network. In
Zhao, Mopuri and Bilen, 2021 (DC), https://arxiv.org/abs/2006.05929, equations 9 and 10, their gradients match

    sum_t sum_c D(grad l(S_c, theta_t), grad l(T_c, theta_t)),    D = sum_layers sum_rows (1 - cos)

where S_c and T_c are the learned and the real examples of class c, and a row is what leads to one output of a
layer. In Zhao and Bilen, 2023 (DM), https://arxiv.org/abs/2110.04181, equation 4, the means of their features match

    sum_c |mean psi(S_c) - mean psi(T_c)|^2,    psi the body of a random network

The theta_t are constants: no gradient passes through the inner loop, which costs no memory, and nothing but the
examples can be learned. ``solvers/matching.py`` takes the sums.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Generator, Tensor

from metaloom.learners.component import Component, TaskComponent
from metaloom.learners.domains import Int
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.tokens import token_count
from metaloom.learners.registry import Registry
from metaloom.learners.tensors import Tensors

DATA: Registry[type[Component]] = Registry("data")


class TrainingData(TaskComponent):
    """What the inner loop trains on."""

    slot = "data"
    numbered: ClassVar[bool] = False  # whether its examples are training samples, whose ids ``sample_ids`` returns

    def select(self, episode: Episode, generator: Generator) -> Episode:
        """Return the episode with what of its support set is trained on, chosen before the inner loop begins."""
        return episode

    def batch(self, phi: Tensors, episode: Episode) -> tuple[Tensor, Tensor]:
        """Return the inner loop's examples [n, *features] and targets; the support set by default."""
        return episode.support_x, episode.support_y

    def sample_ids(self, phi: Tensors, episode: Episode) -> Tensor | None:
        """Return each example's id in the training set, [n] int64; None if they are not its samples."""
        return episode.sample_ids if self.numbered else None


@DATA.register("support")
class SupportSet(TrainingData):
    """The episode's own support set."""

    numbered = True


@DATA.register("whole_task")
class WholeTask(TrainingData):
    """All of a meta-training task's data, support and query together (Reptile); an evaluated task's support alone."""

    def batch(self, phi: Tensors, episode: Episode) -> tuple[Tensor, Tensor]:
        if not episode.training:
            return episode.support_x, episode.support_y
        return torch.cat([episode.support_x, episode.query_x]), torch.cat([episode.support_y, episode.query_y])


@dataclass(frozen=True)
class DistilledConfig:
    """What is learned of each class.

    Attributes:
        per_class: How many examples of each class are learned.
        learn_labels: Whether their labels are learned too.
    """

    per_class: Annotated[int, Int(1, 100)] = 1
    learn_labels: bool = False


@DATA.register("distilled")
class DistilledData(TrainingData):
    """phi is the examples themselves, drawn from N(0, 1); one-hot labels, or learned label logits."""

    config: DistilledConfig
    learns = True

    def __init__(self, config: object, task: TaskShape) -> None:
        super().__init__(config, task)
        if token_count(task):
            raise LearnerError(
                "learner.data: learned examples are quantities, and this task's examples are the token numbers of "
                "texts, which no gradient moves; use core_set"
            )
        if not task.task_kind.has_classes or not task.single_task:
            raise LearnerError(
                "learner.data: distilled data belong to one classification task (of your own data: "
                "tasks.episodes: single_task)"
            )

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


SMALLEST = 1e-6  # added to the lengths' product, as in the reference code: a row without a gradient counts 1


class MatchedData(DistilledData, ABC):
    """Learned examples of every class with a distance of their own to the real ones."""

    solver = "matching"
    compares_gradients: ClassVar[bool]  # whether ``distance`` compares gradients by theta, or mean ``features``

    @abstractmethod
    def distance(self, own: Tensors, real: Tensors) -> Tensor:
        """Return how far the learned examples of a class are from the real ones: []."""

    def of_class(self, label: int) -> slice:
        """Return the rows of a class's examples."""
        first = label * self.config.per_class
        return slice(first, first + self.config.per_class)


@DATA.register("gradient_matching")
class GradientMatchedData(MatchedData):
    """Examples whose gradients point where those of the real data do."""

    compares_gradients = True

    def distance(self, own: Tensors, real: Tensors) -> Tensor:
        """Sum 1 - cosine over the rows of every weight; biases and norms, of one dimension, are left out."""
        rows = [(own[name].flatten(1), real[name].flatten(1)) for name in own if own[name].ndim > 1]
        return torch.stack([(1 - cosines(left, right)).sum() for left, right in rows]).sum()


@DATA.register("distribution_matching")
class DistributionMatchedData(MatchedData):
    """Examples whose mean features under random networks are those of the real data."""

    compares_gradients = False

    def distance(self, own: Tensors, real: Tensors) -> Tensor:
        """Sum the squared differences of the mean features."""
        return torch.stack([(own[name] - real[name]).square().sum() for name in own]).sum()


def cosines(left: Tensor, right: Tensor) -> Tensor:
    """Return the cosine of each pair of rows: [rows, d] to [rows]."""
    lengths = torch.linalg.vector_norm(left, dim=-1) * torch.linalg.vector_norm(right, dim=-1)
    cosine: Tensor = (left * right).sum(-1) / (lengths + SMALLEST)
    return cosine
