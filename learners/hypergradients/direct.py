r"""The outer loss's own derivative, where the inner solution counts as a constant.

Liu, Simonyan and Yang, 2019 (DARTS), https://arxiv.org/abs/1806.09055, section 2.3 at xi = 0:

    dF/dphi ~ dL/dphi at theta

No second derivatives, and no signal to anything that the outer loss reaches through theta alone: only to
what takes part in the query pass itself. With ``look_ahead`` off, theta is the one before the inner steps,
as the paper's first-order search has it, and the inner loop is not run at all.
"""

from dataclasses import dataclass

from torch import Tensor

from metaloom.learners.hypergradients.problem import (
    ESTIMATORS,
    Outer,
    Problem,
    ValueEstimator,
    require_last_step_only,
    solution,
)
from metaloom.learners.tensors import Tensors


@dataclass(frozen=True)
class DirectConfig:
    """Whether the inner steps are taken first."""

    look_ahead: bool = True


@ESTIMATORS.register("direct")
class Direct(ValueEstimator):
    """The inner loop is a constant, its start as well as its end."""

    Config = DirectConfig
    config: DirectConfig
    sees = frozenset({"architecture", "normalization", "prediction"})

    def value(self, problem: Problem, phi: Tensors) -> tuple[Tensor, Outer]:
        require_last_step_only(problem, "direct")
        taken = problem.steps if self.config.look_ahead else 0
        outer = problem.outer(phi, solution(problem, phi, taken).theta, taken)
        return outer.loss, outer
