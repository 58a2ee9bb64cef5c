"""Labels as inputs of a solver's own networks: one place a class, whose number limits the ways of a task.

The places are those of the most ways of the training, or as many as the setting ``most_ways`` says. A task with fewer
classes leaves the others at zero, and its outputs for them at ``ABSENT``; one with more is refused.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.domains import Bounds, Int
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError

MostWays = Annotated[int | None, Int(2, 1000), Bounds(at_least=2)]
ABSENT = -1e4  # a logit whose softmax is 0 in every precision, and whose loss is finite


def label_width(most_ways: int | None, task: TaskShape) -> int:
    """Return how many places a label has; raises LearnerError if the task has more classes."""
    if most_ways is None:
        return task.outputs
    if task.outputs > most_ways:
        raise LearnerError(
            f"learner.prediction.most_ways is {most_ways}, and a task has {task.outputs} classes; give at least as many"
        )
    return most_ways


def placed(labels: Tensor, width: int, like: Tensor) -> Tensor:
    """Return the labels [n] as one-hot rows [n, width]."""
    return F.one_hot(labels, width).to(like)


def uniform(labels: Tensor, width: int, like: Tensor) -> Tensor:
    """Return what stands for an unknown label, equal over the classes that are among ``labels`` [n]: [width]."""
    present = placed(labels, width, like).amax(0)
    return present / present.sum()


def of_present(outputs: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Return outputs [n, width] for the task's ways [n, ways], with ``ABSENT`` for classes not among ``labels``."""
    present = placed(labels, outputs.shape[1], outputs).amax(0) > 0
    absent = torch.full_like(outputs, ABSENT)
    return torch.where(present, outputs, absent)[:, :ways]
