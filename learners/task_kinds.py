"""Kinds of task: the loss and the score of a query set, and the predictions of an adapted model.

A kind of task is one object, added to ``TASK_KINDS`` here or by an installed package. Everything else asks it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.registry import Registry

LABELLED = "labelled"  # in ``serves``: every kind whose examples have targets
ANY_KIND = "*"  # in ``serves``: every kind but those whose examples come in order, which a solver must name

Judge = Callable[[Tensor, Tensor], Tensor]


def unchanged(outputs: Tensor) -> Tensor:
    """Return the outputs themselves."""
    return outputs


def fraction_right(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the fraction of queries whose largest output [n, ways] is that of their label [n]: [], float64.

    In float32, 3 of 5 would be recorded as 0.6000000238418579, which is more than 0.6.
    """
    return (outputs.argmax(-1) == targets).double().mean()


def earlier_of_class(labels: Tensor) -> Tensor:
    """Count, for each example of a sequence [..., n], the earlier ones of its class: int64 [..., n]."""
    return (labels.unsqueeze(-1) == labels.unsqueeze(-2)).tril(-1).sum(-1)


@dataclass(frozen=True)
class TaskKind:
    """A kind of task.

    Attributes:
        name: As in ``TaskShape.kind``, in stored files and in a component's ``serves``.
        losses: Outputs [n, outputs] and targets to one loss per example [n].
        default_loss: The kind of the ``loss`` slot where the experiment names none; ``task`` trains on ``losses``.
        outer_loss: The mean of ``losses``, if there is a fused function of it; None averages them.
        accuracy: Outputs and targets to the fraction that is right, []; None judges by the loss alone.
        predict: Outputs to an adapted model's predictions, such as probabilities.
        has_classes: Whether targets are int64 labels [n] of classes that an adapted task numbers from 0; else they are
            floating numbers [n, outputs].
        labelled: Whether examples have targets; else the targets are empty (a control task's starting states).
        inner_loop: The ``InnerLoop`` class that takes its steps; None is ``InnerLoop`` itself.
        in_order: Whether an episode's queries are a sequence: each is answered after the ones before it, whose labels
            come one step late. Only the solvers that name the kind serve it.
        is_own: Whether only the solvers that name the kind serve it, though its examples do not come in order.
    """

    name: str
    losses: Judge
    default_loss: str = "task"
    outer_loss: Judge | None = None
    accuracy: Judge | None = None
    predict: Callable[[Tensor], Tensor] = unchanged
    has_classes: bool = False
    labelled: bool = True
    inner_loop: Callable[..., Any] | None = None
    in_order: bool = False
    is_own: bool = False

    @property
    def metric(self) -> str:
        """The metric of its episodes: ``accuracy`` (more is better) or ``loss`` (less is)."""
        return "accuracy" if self.accuracy else "loss"

    @property
    def answers_outputs(self) -> bool:
        """Whether predictions are the outputs themselves, so that they have a loss."""
        return self.predict is unchanged

    def loss_of_answers(self, answers: Any, targets: Any) -> float:
        """Return the loss of predictions [n] or [n, outputs] at as many targets; arrays of numpy or torch."""
        given, wanted = (torch.as_tensor(one).double().reshape(len(answers), -1) for one in (answers, targets))
        return float(self.outer(given, wanted))

    def constant_loss(self, given: Tensor, wanted: Tensor) -> float | None:
        """Return the loss of answering every query with the mean of the targets ``given``; None where there is none.

        Args:
            given: The support set's targets [n, outputs].
            wanted: The queries' targets [queries, outputs].
        """
        if self.has_classes or not self.labelled or not self.answers_outputs or not len(given):
            return None
        return float(self.outer(given.mean(0).expand_as(wanted), wanted))

    def served_by(self, serves: frozenset[str]) -> bool:
        """Whether a component that serves these kinds of task serves this one."""
        whole = () if self.in_order or self.is_own else (ANY_KIND, LABELLED if self.labelled else self.name)
        return bool(serves & {self.name, *whole})

    def outer(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a query set, []."""
        return self.outer_loss(outputs, targets) if self.outer_loss else self.losses(outputs, targets).mean()

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the accuracy of a query set, []; NaN where the kind has none."""
        if self.accuracy is None:
            return torch.full((), torch.nan, dtype=outputs.dtype, device=outputs.device)
        return self.accuracy(outputs, targets)

    def curves(self, outputs: Tensor, targets: Tensor) -> tuple[list[float], list[float]]:
        """Return the losses and the accuracies of a query set: one of each, or one for each presentation of a class.

        Presentation k of a sequence are the examples with k earlier ones of their class.
        """
        if not self.in_order:
            return [float(self.outer(outputs, targets))], [float(self.score(outputs, targets))]
        earlier = earlier_of_class(targets)
        counts = torch.bincount(earlier).double()
        each = (self.losses(outputs, targets), outputs.argmax(-1) == targets)
        sums = (torch.zeros_like(counts).index_add(0, earlier, one.double()) for one in each)
        losses, accuracies = ((one / counts).tolist() for one in sums)
        return losses, accuracies


TASK_KINDS: Registry[TaskKind] = Registry("kind of task")


def register_task_kind(kind: TaskKind) -> TaskKind:
    """Make a kind of task available under its name; raises LearnerError if the name is taken."""
    return TASK_KINDS.add(kind.name, kind)


def names_served(serves: frozenset[str]) -> list[str]:
    """Return the names of the kinds of task that a component serves."""
    return [name for name, kind in TASK_KINDS.items() if kind.served_by(serves)]


def per_example_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return -log p_target of each example, [n]."""
    return F.cross_entropy(outputs, targets, reduction="none")


def per_example_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the squared error of each example, averaged over the target's dimensions, [n]."""
    return (outputs - targets).square().mean(-1)


def probabilities(outputs: Tensor) -> Tensor:
    """Return the softmax over ways."""
    return F.softmax(outputs, -1)


CLASSIFICATION = register_task_kind(
    TaskKind(
        "classification",
        per_example_cross_entropy,
        default_loss="cross_entropy",
        outer_loss=F.cross_entropy,
        accuracy=fraction_right,
        predict=probabilities,
        has_classes=True,
    )
)

REGRESSION = register_task_kind(
    TaskKind("regression", per_example_squared_error, default_loss="mse", outer_loss=F.mse_loss)
)

SEQUENCE = register_task_kind(
    TaskKind(
        "sequence",
        per_example_cross_entropy,
        default_loss="cross_entropy",
        outer_loss=F.cross_entropy,
        accuracy=fraction_right,
        predict=probabilities,
        has_classes=True,
        in_order=True,
    )
)
