r"""Reptile's outer direction: the start minus where the inner loop went.

Nichol, Achiam and Schulman, 2018, https://arxiv.org/abs/1803.02999, algorithm 1:

    phi <- phi + epsilon * (theta_T - phi)

As a gradient it is theta_0 - theta_T, so that an outer SGD of rate epsilon is the paper's update.
It is not the derivative of the query loss (its own objective adds gradient alignment within a
task), costs no second derivatives, and is defined for the initialization alone.
"""

from metaloom.learners.hypergradients.problem import (
    ESTIMATORS,
    Estimator,
    Hypergradient,
    Problem,
    detached_outer,
    require_last_step_only,
    solution,
)
from metaloom.learners.tensors import Tensors, as_leaves, pullback


@ESTIMATORS.register("displacement")
class Displacement(Estimator):
    """theta_0 - theta_T."""

    sees = frozenset({"initialization"})

    def estimate(self, problem: Problem, phi: Tensors) -> Hypergradient:
        require_last_step_only(problem, "displacement")
        end = solution(problem, phi).theta
        leaves = as_leaves(phi)
        start = problem.start(leaves).theta
        outer = problem.outer(phi, end, problem.steps)
        moved = {name: (value - end[name]).detach() for name, value in start.items()}
        return Hypergradient(pullback(start, moved, leaves), detached_outer(outer), {})
