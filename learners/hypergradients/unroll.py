r"""Backpropagation through the inner loop, whole or cut.

Maclaurin et al., 2015, https://arxiv.org/abs/1502.03492; Finn et al., 2017, equation 1:

    dF/dphi = dL/dphi + sum_t (d step_t / dphi)^T (d theta_T / d theta_{t+1})^T v,    v = dL/dtheta_T

* ``unroll``: exact. Time about 3-5 T gradients, memory one graph per step.
* ``first_order``: theta_T - theta_0 is a constant (FOMAML, section 5.2 of the MAML paper): no
  second derivatives, and no signal to anything but the start.
* ``one_step``: all but the last step is a constant (T1-T2, Luketina et al., 2016,
  https://arxiv.org/abs/1511.06727): biased unless the inner loop sits near its solution;
  no signal to the start. In an online inner loop of one step it is exact.
"""

from torch import Tensor

from metaloom.learners.base import Tensors
from metaloom.learners.hypergradients.problem import (
    ESTIMATORS,
    Outer,
    Problem,
    ValueEstimator,
    require_last_step_only,
    solution,
)


@ESTIMATORS.register("unroll")
class Unroll(ValueEstimator):
    """Exact: differentiate the whole inner loop."""

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
