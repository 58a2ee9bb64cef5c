r"""Backpropagation through the inner loop, whole or cut.

Maclaurin et al., 2015, https://arxiv.org/abs/1502.03492; Finn et al., 2017, equation 1:

    dF/dphi = dL/dphi + sum_t (d step_t / dphi)^T (d theta_T / d theta_{t+1})^T v,    v = dL/dtheta_T

* ``unroll``: exact. Time about 3-5 T gradients, memory one graph per step.
* ``first_order``: theta_T - theta_0 is a constant (FOMAML, section 5.2 of the MAML paper): no
  second derivatives, and no signal to anything but the start.
* ``one_step``: all but the last step is a constant (T1-T2, Luketina et al., 2016,
  https://arxiv.org/abs/1511.06727): biased unless the inner loop sits near its solution;
  no signal to the start. In an online inner loop of one step it is exact.
* ``truncated``: all but the last K steps are a constant (Shaban et al., 2019,
  https://arxiv.org/abs/1810.10667): bias about (1 - mu / L)^K near the solution, where it
  equals K terms of the Neumann series. No signal to the start, unless ``first_order_start``
  says that the cut steps' displacement counts as a constant, as in ``first_order``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from metaloom.learners.domains import Int
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import (
    ESTIMATORS,
    NOTHING,
    Outer,
    Problem,
    ValueEstimator,
    require_last_step_only,
    solution,
)
from metaloom.learners.tensors import Tensors


@ESTIMATORS.register("unroll")
class Unroll(ValueEstimator):
    """Exact: differentiate the whole inner loop."""

    exact = True

    def value(self, problem: Problem, phi: Tensors) -> tuple[Tensor, Outer]:
        state = problem.start(phi)
        weights = problem.step_weights
        weighted: list[Tensor] = []
        outer: Outer | None = None
        for index in range(problem.steps):
            state = problem.step(phi, state, index)
            if weights is not None and weights[index] > 0:
                outer = problem.outer(phi, state.theta, index + 1)
                weighted.append(weights[index] * outer.loss)
        if weights is None or outer is None:
            outer = problem.outer(phi, state.theta, problem.steps)
            return outer.loss, outer
        return sum(weighted[1:], weighted[0]), outer


@ESTIMATORS.register("first_order")
class FirstOrder(ValueEstimator):
    """The inner loop's displacement is a constant."""

    sees = frozenset({"initialization", "normalization", "prediction"})

    def value(self, problem: Problem, phi: Tensors) -> tuple[Tensor, Outer]:
        require_last_step_only(problem, "first_order")
        end = solution(problem, phi)
        start = problem.start(phi).theta
        theta = {name: value + (end.theta[name] - value).detach() for name, value in start.items()}
        outer = problem.outer(phi, theta, problem.steps)
        return outer.loss, outer


@ESTIMATORS.register("one_step")
class OneStep(ValueEstimator):
    """Only the last inner step is differentiated."""

    blind = frozenset({"initialization"})

    def value(self, problem: Problem, phi: Tensors) -> tuple[Tensor, Outer]:
        require_last_step_only(problem, "one_step")
        state = solution(problem, phi, problem.steps - 1)
        state = problem.step(phi, state, problem.steps - 1)
        outer = problem.outer(phi, state.theta, problem.steps)
        return outer.loss, outer


@dataclass(frozen=True)
class TruncatedConfig:
    """How much of the inner loop is differentiated.

    Attributes:
        last: K, the inner steps that are; all of them where there are fewer.
        first_order_start: Let the start have a first-order signal through the steps that are cut.
    """

    last: Annotated[int, Int(1, 1000)] = 5
    first_order_start: bool = False

    def __post_init__(self) -> None:
        if self.last < 1:
            raise LearnerError(f"outer.hypergradient.last must be at least 1, got {self.last}")


@ESTIMATORS.register("truncated")
class Truncated(ValueEstimator):
    """Only the last K inner steps are differentiated."""

    Config = TruncatedConfig
    config: TruncatedConfig
    blind = frozenset({"initialization"})

    @classmethod
    def gives_signal(cls, slot: str, settings: Mapping[str, Any] = NOTHING) -> bool:
        """The start has a signal where that is declared."""
        declared = slot == "initialization" and settings.get("first_order_start") is True
        return declared or super().gives_signal(slot, settings)

    def value(self, problem: Problem, phi: Tensors) -> tuple[Tensor, Outer]:
        require_last_step_only(problem, "truncated")
        cut = max(problem.steps - self.config.last, 0)
        state = solution(problem, phi, cut) if cut else problem.start(phi)
        if cut and self.config.first_order_start:
            start = problem.start(phi).theta
            state = state._replace(theta={n: v + (state.theta[n] - v).detach() for n, v in start.items()})
        for index in range(cut, problem.steps):
            state = problem.step(phi, state, index)
        outer = problem.outer(phi, state.theta, problem.steps)
        return outer.loss, outer
