r"""The implicit hypergradient of any converged inner update, its momentum included.

Grazzi, Franceschi, Pontil and Salzo, 2020, https://arxiv.org/abs/2006.16218, section 3: at a fixed point
s* = Phi(s*, phi) of the whole inner step (theta and the optimizer's buffers),

    dF/dphi = dL/dphi + (dPhi/dphi)^T q,    q = (dPhi/ds)^T q + dL/ds

by iterating the last equation: each iteration is one more step of unrolling at s*, and converges as fast as the
inner loop itself does. Needs no symmetric H and no step to tune. Memory: one step's graph, whatever the steps.
"""

import math
from dataclasses import dataclass
from typing import Annotated

from metaloom.learners.domains import Int
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.implicit import GROWING, UNSOLVED, unsolved
from metaloom.learners.hypergradients.problem import ESTIMATORS, Estimator, Hypergradient, Problem, solution
from metaloom.learners.tensors import InnerState, Tensors, add, as_leaves, detach, dot, norm, pullback, pullbacks

NEGLIGIBLE = 1e-7  # of the first change: below it, growth is rounding


@dataclass(frozen=True)
class FixedPointConfig:
    """Iterations, each a product with the Jacobian of one inner step."""

    iterations: Annotated[int, Int(1, 1000)] = 20


@ESTIMATORS.register("fixed_point")
class FixedPoint(Estimator):
    """Iterates the adjoint of the last inner step; raises LearnerError if that diverges: the step does not contract."""

    Config = FixedPointConfig
    config: FixedPointConfig
    blind = frozenset({"update"})
    last_step_only = True
    needs_steps = True
    at_solution = True

    def estimate(self, problem: Problem, phi: Tensors) -> Hypergradient:
        end = solution(problem, phi)
        outer, gradient, by_state = problem.outer_gradients(phi, end)
        leaves, before = as_leaves(phi), as_leaves(end.flat())
        after = problem.step(leaves, InnerState.of(before), problem.steps - 1).flat()
        still = {name: leaf for name, leaf in before.items() if after[name] is leaf}  # what no inner step moves
        moving = {name: value for name, value in after.items() if name not in still}
        right = {name: value for name, value in by_state.items() if name in moving}
        adjoint, diagnostics = self._solve(moving, {name: before[name] for name in moving}, right)
        by_phi, by_still = pullbacks(moving, adjoint, leaves, still)
        at_start = {name: by_state[name] + value for name, value in by_still.items()}
        gradient = add(add(gradient, by_phi), problem.start_gradient(phi, at_start))
        change = {name: value - before[name] for name, value in moving.items()}
        diagnostics["inner_gradient_norm"] = float(norm(problem.stationarity(detach(phi), end.theta)).detach())
        diagnostics[UNSOLVED] = unsolved(outer.loss, dot(adjoint, change))
        return Hypergradient(gradient, outer, diagnostics)

    def _solve(self, after: Tensors, before: Tensors, right: Tensors) -> tuple[Tensors, dict[str, float]]:
        """Return sum_{k <= iterations} (J^T)^k right, and how far that is from solving q = J^T q + right."""
        adjoint, change, growth = right, right, 0.0
        first = length = float(norm(right))
        for index in range(self.config.iterations + 1):  # the last product is the residual
            change = pullback(after, change, before, keep=True)
            previous, length = length, float(norm(change))
            growth = length / previous if previous > NEGLIGIBLE * first else 0.0
            if index < self.config.iterations:
                adjoint = add(adjoint, change)
        if not math.isfinite(length) or growth > GROWING:
            raise LearnerError(
                f"outer.hypergradient: fixed_point diverges: its last change is {growth:.3g} times as long as the one "
                "before, so the inner step does not contract here; lower learner.update.rate, raise inner.proximal, "
                "take more inner steps, or use adjoint"
            )
        return adjoint, {"residual": length / first if first > 0 else 0.0, "growth": growth}
