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
from metaloom.learners.hypergradients.implicit import GROWING
from metaloom.learners.hypergradients.problem import (
    ESTIMATORS,
    Estimator,
    Hypergradient,
    Problem,
    detached_outer,
    require_last_step_only,
    solution,
)
from metaloom.learners.hypergradients.stationarity import UNSOLVED, unsolved
from metaloom.learners.tensors import (
    Tensors,
    add,
    as_leaves,
    derivative,
    dot,
    flat_state,
    norm,
    part,
    pullback,
    state_of,
    under,
)

NEGLIGIBLE = 1e-7  # of the first change: below it, growth is rounding


@dataclass(frozen=True)
class FixedPointConfig:
    """Iterations, each a product with the Jacobian of one inner step."""

    iterations: Annotated[int, Int(1, 1000)] = 20

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise LearnerError(f"outer.hypergradient.iterations must be at least 1, got {self.iterations}")


@ESTIMATORS.register("fixed_point")
class FixedPoint(Estimator):
    """Iterates the adjoint of the last inner step.

    Raises:
        LearnerError: The iteration diverges: the inner step does not contract.
    """

    Config = FixedPointConfig
    config: FixedPointConfig
    blind = frozenset({"update"})
    at_solution = True

    def estimate(self, problem: Problem, phi: Tensors) -> Hypergradient:
        require_last_step_only(problem, "fixed_point")
        end, last = flat_state(solution(problem, phi)), problem.steps - 1
        leaves, here = as_leaves(phi), as_leaves(end)
        outer = problem.outer(leaves, part(here, "theta"), problem.steps)
        both = derivative(outer.loss, under("phi", leaves) | under("state", here))
        step_phi, before = as_leaves(phi), as_leaves(end)
        after = flat_state(problem.step(step_phi, state_of(before), last))
        still = {name: leaf for name, leaf in before.items() if after[name] is leaf}  # what no inner step moves
        moving = {name: value for name, value in after.items() if name not in still}
        right = {name: value for name, value in part(both, "state").items() if name in moving}
        found, diagnostics = self._solve(moving, {name: before[name] for name in moving}, right)
        through = pullback(moving, found, under("phi", step_phi) | under("still", still))
        at_start = {name: both[f"state/{name}"] + through[f"still/{name}"] for name in still}
        start = as_leaves(phi)
        states = {name: value for name, value in flat_state(problem.start(start)).items() if name in still}
        gradient = add(
            add(part(both, "phi", optional=True), part(through, "phi", optional=True)),
            pullback(states, at_start, start),
        )
        fixed = {name: value.detach() for name, value in phi.items()}
        diagnostics["inner_gradient_norm"] = float(norm(problem.stationarity(fixed, part(end, "theta"))).detach())
        diagnostics[UNSOLVED] = unsolved(outer.loss, dot(found, {name: moving[name] - end[name] for name in moving}))
        return Hypergradient(gradient, detached_outer(outer), diagnostics)

    def _solve(self, after: Tensors, before: Tensors, right: Tensors) -> tuple[Tensors, dict[str, float]]:
        """Return sum_{k <= iterations} (J^T)^k right, and how far that is from solving q = J^T q + right."""
        found, change, growth = right, right, 0.0
        first = length = float(norm(right))
        for index in range(self.config.iterations + 1):  # the last product is the residual
            change = pullback(after, change, before, keep=True)
            shorter, length = length, float(norm(change))
            growth = length / shorter if shorter > NEGLIGIBLE * first else 0.0
            if index < self.config.iterations:
                found = add(found, change)
        if not math.isfinite(length) or growth > GROWING:
            raise LearnerError(
                f"outer.hypergradient: fixed_point diverges: its last change is {growth:.3g} times as long as the one "
                "before, so the inner step does not contract here; lower learner.update.rate, raise inner.proximal, "
                "take more inner steps, or use adjoint"
            )
        return found, {"residual": length / first if first > 0 else 0.0, "growth": growth}
