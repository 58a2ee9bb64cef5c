r"""What the inner loop minimizes on the support set; per example, so that weights can multiply it.

``mixture`` and ``regression_mixture`` are sums of known losses, each times a number that is fixed, searched or learned.
With p_k the predicted probability of class k and y the label:

    cross_entropy  -log p_y
    focal          -(1 - p_y)^gamma log p_y           Lin et al., 2017, https://arxiv.org/abs/1708.02002, equation 4
    squared        sum_k (p_k - [k = y])^2            Brier's score
    absolute       sum_k |p_k - [k = y]| = 2 - 2 p_y  Ghosh et al., 2017, https://arxiv.org/abs/1712.09482
    generalized    (1 - p_y^q) / q                    Zhang and Sabuncu, 2018, https://arxiv.org/abs/1805.07836, eq. 6

``cross_entropy`` with ``absolute`` is the symmetric cross entropy of Wang et al., 2019
(https://arxiv.org/abs/1908.06112): its reverse part is -A (1 - p_y). ``generalized`` lies between cross entropy (q to
0) and half of ``absolute`` (q = 1): the larger q, the less a wrong label pulls, and the more slowly a hard example is
learned. In regression the losses are ``squared``, ``absolute`` and log cosh of the error, which is like the first near
0 and like the second far from it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.component import Component, Composite, TaskComponent
from metaloom.learners.domains import Bounds, Learned, Real
from metaloom.learners.errors import LearnerError
from metaloom.learners.registry import Registry
from metaloom.learners.task_kinds import LABELLED
from metaloom.learners.tensors import Tensors

LOSSES: Registry[type[Component]] = Registry("loss")


class Loss(TaskComponent, ABC):
    """A loss per example.

    Class attributes:
        serves: The kinds of task whose targets it takes, by name; ``labelled`` for all that have targets.
    """

    slot = "loss"
    serves: ClassVar[frozenset[str]]

    @abstractmethod
    def losses(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return one loss per example, [n].

        ``outputs`` are [n, ways] logits or [n, targets] predictions; ``targets`` are [n] int64 labels, [n, ways] label
        distributions, or [n, targets] values.
        """


class Penalty(Loss, ABC):
    """A term of the parameters in the inner loss beside the losses of the examples; no example weight multiplies it."""

    serves = frozenset({LABELLED})

    @property
    def smooth(self) -> bool:
        """Whether it has a gradient everywhere, so that an inner problem with it has a stationary point."""
        return True

    @property
    def toward_start(self) -> bool:
        """Whether it depends on where the inner loop starts."""
        return False

    @abstractmethod
    def penalty(self, phi: Tensors, theta: Tensors, start: Tensors) -> Tensor:
        """Return the term, [], of all parameters and of those at the start; differentiable, and without chance."""

    def names(self) -> tuple[str, ...]:
        """Return the patterns that choose the parameters it is of, which the network must have; none for all."""
        return ()

    def losses(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return zeros: it is no loss of an example."""
        return outputs.new_zeros(len(outputs))


class SumOfLosses(Composite, Loss):
    """l = l_1 + l_2 + ...; a member's share is set by its own scale."""

    members: tuple[Loss, ...]

    @property
    def penalties(self) -> tuple[Penalty, ...]:
        """Return the members that are terms of the parameters."""
        return tuple(member for member in self.members if isinstance(member, Penalty))

    def losses(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        parts = zip(self.members, self.parts(phi), strict=True)
        each = [member.losses(own, outputs, targets) for member, own in parts if not isinstance(member, Penalty)]
        return sum(each[1:], start=each[0])

    def penalty(self, phi: Tensors, theta: Tensors, start: Tensors) -> Tensor:
        """Return the sum of the terms of the parameters: []."""
        parts = zip(self.members, self.parts(phi), strict=True)
        each = [member.penalty(own, theta, start) for member, own in parts if isinstance(member, Penalty)]
        return sum(each[1:], start=each[0])


def expected(values: Tensor, targets: Tensor) -> Tensor:
    """Return each example's value [n, ways] at its label ([n] int64), or the mean over its distribution [n, ways]."""
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


KINDS = ("cross_entropy", "focal", "squared", "absolute", "generalized")
# searched from just above 0: where all searched coefficients are 0 there is no loss
Coefficient = Annotated[float | Learned, Real(0.01, 2.0, positive=True)]


def check_coefficients(config: object, names: tuple[str, ...]) -> None:
    """Refuse a mixture of nothing, and a learned coefficient that starts at 0; raises LearnerError."""
    values = {name: getattr(config, name) for name in names}
    for name, value in values.items():
        if isinstance(value, Learned) and not (getattr(type(config), name) if value.start is None else value.start) > 0:
            raise LearnerError(f"learner.loss.{name} is learned as its logarithm; give it a start above 0, such as 0.1")
    if not any(isinstance(value, Learned) or value > 0 for value in values.values()):
        raise LearnerError(f"learner.loss: every coefficient of the mixture is 0; raise one of {', '.join(names)}")


@dataclass(frozen=True)
class MixtureConfig:
    """How much of each loss.

    Attributes:
        cross_entropy, focal, squared, absolute, generalized: The coefficient of this loss.
        gamma: Exponent of the focal loss.
        q: Exponent of the generalized cross-entropy; cross entropy is its limit at 0.
    """

    cross_entropy: Coefficient = 1.0
    focal: Coefficient = 0.0
    squared: Coefficient = 0.0
    absolute: Coefficient = 0.0
    generalized: Coefficient = 0.0
    gamma: Annotated[float | Learned, Real(0.0, 5.0)] = 2.0
    q: Annotated[float | Learned, Real(0.05, 1.0, positive=True), Bounds(above=0)] = 0.7

    def __post_init__(self) -> None:
        check_coefficients(self, KINDS)


@LOSSES.register("mixture")
class Mixture(Loss):
    """Cross entropy, focal, squared, absolute and generalized cross entropy."""

    config: MixtureConfig
    serves = frozenset({"classification"})

    def losses(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        log_p = F.log_softmax(outputs, dim=-1)
        total = torch.zeros_like(log_p[:, 0])
        for name in KINDS:
            if getattr(self.config, name) != 0.0:
                total = total + self.knob(phi, name) * self._one(name, phi, log_p, targets)
        return total

    def _one(self, name: str, phi: Tensors, log_p: Tensor, targets: Tensor) -> Tensor:
        p = log_p.exp()
        match name:
            case "focal":
                # the smallest base is 1e-6: below it the power's gradient in gamma would be infinite
                missed = torch.pow((1 - p).clamp_min(1e-6), self.knob(phi, "gamma"))
                return -expected(missed * log_p, targets)
            case "squared":
                certain = targets.square().sum(-1) if targets.is_floating_point() else 1.0
                return p.square().sum(-1) - 2 * expected(p, targets) + certain
            case "absolute":
                return 2 - 2 * expected(p, targets)
            case "generalized":
                q = self.knob(phi, "q")
                return (1 - expected(torch.exp(q * log_p), targets)) / q
        return -expected(log_p, targets)


@dataclass(frozen=True)
class RegressionMixtureConfig:
    """How much of each loss of the error.

    Attributes:
        squared, absolute, log_cosh: The coefficient of this loss of the error.
    """

    squared: Coefficient = 1.0
    absolute: Coefficient = 0.0
    log_cosh: Coefficient = 0.0

    def __post_init__(self) -> None:
        check_coefficients(self, ("squared", "absolute", "log_cosh"))


@LOSSES.register("regression_mixture")
class RegressionMixture(Loss):
    """Squared, absolute and log cosh of the error, each averaged over the target's dimensions."""

    config: RegressionMixtureConfig
    serves = frozenset({"regression"})

    def losses(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        error = outputs - targets
        size = error.abs()
        # log cosh e = |e| + log(1 + exp(-2 |e|)) - log 2, which does not overflow; even in e, so smooth at 0
        parts = {"squared": error.square(), "absolute": size, "log_cosh": F.softplus(-2 * error) + error}
        total = torch.zeros_like(error[:, 0])
        for name, part in parts.items():
            if getattr(self.config, name) != 0.0:
                level = torch.log(torch.tensor(2.0)).to(error) if name == "log_cosh" else 0.0
                total = total + self.knob(phi, name) * (part - level).mean(-1)
        return total
