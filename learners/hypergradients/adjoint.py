r"""The exact hypergradient with memory flat in the steps: an explicit adjoint.

The inner loop is run once without a graph, keeping theta_t alone; then each step is made
again, backwards, and its vector-Jacobian product taken:

    v_T = dL/dtheta_T,    v_t = (d step_t / d theta_t)^T v_{t+1},
    dF/dphi = dL/dphi + sum_t (d step_t / dphi)^T v_{t+1}

For plain SGD the product is v_t = v_{t+1} - rate * H v_{t+1}: one Hessian-vector product a
step. Costs one more inner gradient per step than ``unroll``; memory T |theta| + one graph.
"""

from metaloom.learners.base import Tensors
from metaloom.learners.hypergradients.problem import (
    ESTIMATORS,
    Estimator,
    Hypergradient,
    Outer,
    Problem,
    add,
    as_leaves,
    derivative,
    detached,
    detached_outer,
    pullback,
)
from metaloom.learners.knowledge.slots import part, under
from metaloom.learners.knowledge.update_rules import InnerState


def _flat(state: InnerState) -> Tensors:
    return under("theta", state.theta) | under("buffers", state.buffers)


def _state(flat: Tensors) -> InnerState:
    return InnerState(part(flat, "theta"), part(flat, "buffers"))


@ESTIMATORS.register("adjoint")
class Adjoint(Estimator):
    """Exact; keeps theta_t only, and one step's graph at a time."""

    def __call__(self, problem: Problem, phi: Tensors) -> Hypergradient:
        states = [detached(problem.start(phi))]
        for index in range(problem.steps):
            states.append(detached(problem.step(phi, states[-1], index)))
        gradient, cotangent, outer = self._verdict(problem, phi, states, problem.steps)
        for index in reversed(range(problem.steps)):
            step_phi, before = as_leaves(phi), as_leaves(_flat(states[index]))
            after = _flat(problem.step(step_phi, _state(before), index))
            both = pullback(after, cotangent, under("phi", step_phi) | under("state", before))
            gradient, cotangent = add(gradient, part(both, "phi")), part(both, "state")
            if index > 0 and problem.step_weights is not None and problem.step_weights[index - 1] > 0:
                direct, here, _ = self._verdict(problem, phi, states, index)
                gradient, cotangent = add(gradient, direct), add(cotangent, here)
        start_phi = as_leaves(phi)
        gradient = add(gradient, pullback(_flat(problem.start(start_phi)), cotangent, start_phi))
        return Hypergradient(gradient, detached_outer(outer), {})

    def _verdict(
        self, problem: Problem, phi: Tensors, states: list[InnerState], taken: int
    ) -> tuple[Tensors, Tensors, Outer]:
        """Return the weighted outer loss's gradient by phi and by the state after ``taken`` steps."""
        leaves, flat = as_leaves(phi), as_leaves(_flat(states[taken]))
        outer = problem.outer(leaves, part(flat, "theta"), taken)
        weight = 1.0 if problem.step_weights is None else problem.step_weights[taken - 1]
        both = derivative(weight * outer.loss, under("phi", leaves) | under("state", flat))
        return part(both, "phi"), part(both, "state"), outer
