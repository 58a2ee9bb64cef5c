r"""A sum of known losses, each times a number that is fixed, searched or learned.

With p_k the predicted probability of class k and y the label:

    cross_entropy  -log p_y
    focal          -(1 - p_y)^gamma log p_y           Lin et al., 2017, https://arxiv.org/abs/1708.02002, equation 4
    squared        sum_k (p_k - [k = y])^2            Brier's score
    absolute       sum_k |p_k - [k = y]| = 2 - 2 p_y  Ghosh et al., 2017, https://arxiv.org/abs/1712.09482
    generalized    (1 - p_y^q) / q                    Zhang and Sabuncu, 2018, https://arxiv.org/abs/1805.07836, eq. 6

``cross_entropy`` with ``absolute`` is the symmetric cross entropy of Wang et al., 2019
(https://arxiv.org/abs/1908.06112): its reverse part is -A (1 - p_y). ``generalized`` lies between cross entropy (q to
0) and half of ``absolute`` (q = 1): the farther to the right, the less a wrong label pulls, and the slower a hard
example is learned. In regression the losses are ``squared``, ``absolute`` and log cosh of the error, which is
the one near 0 and the other far from it.
"""

from dataclasses import dataclass, fields
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.domains import Learned, Real
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.loss import LOSSES, Loss, expected
from metaloom.learners.tensors import Tensors

# searched from just above 0: where all searched coefficients are 0 there is no loss
Coefficient = Annotated[float | Learned, Real(0.01, 2.0, positive=True)]


def check_coefficients(config: object, names: tuple[str, ...]) -> None:
    """Refuse a mixture of nothing, and a learned coefficient that starts where its logarithm is infinite.

    Raises:
        LearnerError: The message names the coefficient.
    """
    values = {name: getattr(config, name) for name in names}
    defaults = {field.name: field.default for field in fields(config)}  # type: ignore[arg-type]
    for name, value in values.items():
        start = value.start if isinstance(value, Learned) and value.start is not None else defaults[name]
        if isinstance(value, Learned) and not start > 0:  # type: ignore[operator]
            raise LearnerError(f"learner.loss.{name} is learned as its logarithm; give it a start above 0, such as 0.1")
        if not isinstance(value, Learned) and value < 0:
            raise LearnerError(f"learner.loss.{name} must be at least 0, got {value}")
    if not any(isinstance(value, Learned) or value > 0 for value in values.values()):
        raise LearnerError(f"learner.loss: every coefficient of the mixture is 0; raise one of {', '.join(names)}")


@dataclass(frozen=True)
class MixtureConfig:
    """How much of each loss; ``gamma`` is the focal one's, ``q`` the generalized one's.

    Attributes:
        cross_entropy, focal, squared, absolute, generalized: The coefficient of this loss.
        gamma: Exponent of the focal loss.
        q: Exponent of the generalized cross-entropy.
    """

    cross_entropy: Coefficient = 1.0
    focal: Coefficient = 0.0
    squared: Coefficient = 0.0
    absolute: Coefficient = 0.0
    generalized: Coefficient = 0.0
    gamma: Annotated[float | Learned, Real(0.0, 5.0)] = 2.0
    q: Annotated[float | Learned, Real(0.05, 1.0, positive=True)] = 0.7

    def __post_init__(self) -> None:
        check_coefficients(self, ("cross_entropy", "focal", "squared", "absolute", "generalized"))
        if not isinstance(self.q, Learned) and self.q <= 0:
            raise LearnerError(f"learner.loss.q must be above 0, got {self.q}; cross_entropy is its limit at 0")


@LOSSES.register("mixture")
class Mixture(Loss):
    """Cross entropy, focal, squared, absolute and generalized cross entropy."""

    Config = MixtureConfig
    config: MixtureConfig
    serves = frozenset({"classification"})

    def losses(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        log_p = F.log_softmax(outputs, dim=-1)
        total = torch.zeros_like(log_p[:, 0])
        for name in ("cross_entropy", "focal", "squared", "absolute", "generalized"):
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

    Config = RegressionMixtureConfig
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
