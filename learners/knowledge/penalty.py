r"""A penalty on the parameters in the inner loss, or on their distance from the start.

    l2 / 2 |theta - o|^2 + l1 |theta - o|_1,    o = 0, or theta_0

It stands beside the losses of the examples: ``loss: [cross_entropy, {kind: penalty, l2: 0.01}]``. Its strengths may be
learned. The l2 of all parameters towards 0 is the weight decay of ``sgd``, and that towards the start is
``inner.proximal``; this one may be of some layers alone, and its strength follows the hypergradient. With l1 the
inner problem has no gradient where a parameter is at o, which is where l1 puts parameters: estimators at the inner
solution refuse it. The hypergradient along a path holds wherever no parameter is at o.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor

from metaloom.learners.domains import Learned, Real
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.loss import LOSSES, Penalty
from metaloom.learners.knowledge.update_rules.base import is_named, off
from metaloom.learners.tensors import Tensors

Strength = Annotated[float | Learned, Real(1e-6, 1.0, log=True, positive=True)]


@dataclass(frozen=True)
class PenaltyConfig:
    """How strong it is, and on which parameters.

    Attributes:
        l2: The factor of half the squared distance.
        l1: The factor of the sum of the absolute distances.
        toward: Whether distances are from zero, or from where the inner loop starts.
        only: Names of the layers or parameters that it is on, ``*`` in them standing for anything; none for all.
    """

    l2: Strength = 0.0
    l1: Strength = 0.0
    toward: Literal["zero", "start"] = "zero"
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("l2", "l1"):
            value = getattr(self, name)
            if isinstance(value, Learned) and not (value.start or 0) > 0:
                raise LearnerError(f"learner.loss.{name} is learned as its logarithm; give it a start above 0")
        if off(self.l2) and off(self.l1):
            raise LearnerError("learner.loss: a penalty of strength 0 is none; raise l2 or l1")


@LOSSES.register("penalty")
class NormPenalty(Penalty):
    """The squared and the absolute distance of the parameters from zero or from their start."""

    config: PenaltyConfig

    @property
    def smooth(self) -> bool:
        return off(self.config.l1)

    @property
    def toward_start(self) -> bool:
        return self.config.toward == "start"

    def names(self) -> tuple[str, ...]:
        return self.config.only

    def penalty(self, phi: Tensors, theta: Tensors, start: Tensors) -> Tensor:
        chosen = [name for name in theta if not self.config.only or is_named(name, self.config.only)]
        away = [theta[name] - start[name] if self.toward_start else theta[name] for name in chosen]
        total = away[0].new_zeros(())
        if not off(self.config.l2):
            total = total + self.knob(phi, "l2") / 2 * sum(one.square().sum() for one in away)
        if not off(self.config.l1):
            total = total + self.knob(phi, "l1") * sum(one.abs().sum() for one in away)
        return total
