r"""The exact hypergradient with little memory: backwards through the inner loop, whose steps are computed again.

The inner loop is run once without a graph, keeping theta_t alone; then, from the last piece of k steps to the
first, each piece is computed again with its graph, and its vector-Jacobian product taken:

    v_T = dL/dtheta_T,    v_t = (d piece_t / d theta_t)^T v_{t+k},
    dF/dphi = dL/dphi + sum_t (d piece_t / dphi)^T v_{t+k}

* ``adjoint``: k = 1 (Franceschi et al., 2017, https://arxiv.org/abs/1703.01785, algorithm 1, with the graph of one
  step at a time). For plain SGD v_t = v_{t+1} - rate * H v_{t+1}: one Hessian-vector product a step. Memory
  T |theta| + one graph: flat in the steps but for theta_t itself.
* ``checkpointed``: k = ceil(sqrt(T)), keeping every k-th theta_t (Griewank and Walther, 2000, algorithm 799, in its
  simplest form): memory sqrt(T) (|theta| + one graph), for networks whose theta_t would not fit T times.

Both cost one more inner gradient per step than ``unroll``.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from metaloom.learners.domains import Int
from metaloom.learners.hypergradients.problem import ESTIMATORS, Estimator, Hypergradient, Problem
from metaloom.learners.tensors import InnerState, Tensors, add, as_leaves, detach, pullbacks

PIECE_LOSS = "loss"


class Backwards(Estimator):
    """Exact; keeps the state before each piece of the inner loop, and one piece's graph at a time."""

    exact = True

    @abstractmethod
    def piece(self, steps: int) -> int:
        """Return how many steps are computed again at a time."""

    def estimate(self, problem: Problem, phi: Tensors) -> Hypergradient:
        length, fixed = self.piece(problem.steps), detach(phi)
        state, kept = problem.start(fixed).detached(), list[tuple[range, InnerState]]()
        for index in range(problem.steps):
            if index % length == 0:
                kept.append((range(index, min(index + length, problem.steps)), state))
            state = problem.step(fixed, state, index).detached()
        weight = 1.0 if problem.step_weights is None else problem.step_weights[-1]
        outer, gradient, cotangent = problem.outer_gradients(phi, state, weight)
        for steps, before in reversed(kept):
            by_phi, cotangent = _through(problem, phi, before, steps, cotangent)
            gradient = add(gradient, by_phi)
        return Hypergradient(add(gradient, problem.start_gradient(phi, cotangent)), outer, {})


def _through(
    problem: Problem, phi: Tensors, before: InnerState, steps: range, cotangent: Tensors
) -> tuple[Tensors, Tensors]:
    """Pull the cotangent of the state after some steps back to phi and the state before them.

    The outer losses on the way, where a multi-step loss weighs them, are part of the piece.
    """
    leaves, flat = as_leaves(phi), as_leaves(before.flat())
    state, losses = InnerState.of(flat), list[Tensor]()
    for index in steps:
        state = problem.step(leaves, state, index)
        weight = 0.0 if problem.step_weights is None else problem.step_weights[index]
        if weight > 0 and index < problem.steps - 1:  # the cotangent begins with the last outer loss
            losses.append(weight * problem.outer(leaves, state.theta, index + 1).loss)
    after, cotangents = state.flat(), dict(cotangent)
    if losses:
        after[PIECE_LOSS] = torch.stack(losses).sum()
        cotangents[PIECE_LOSS] = torch.ones_like(after[PIECE_LOSS])
    by_phi, by_state = pullbacks(after, cotangents, leaves, flat)
    return by_phi, by_state


@ESTIMATORS.register("adjoint")
class Adjoint(Backwards):
    """One step at a time; every theta_t is kept."""

    def piece(self, steps: int) -> int:
        return 1


@dataclass(frozen=True)
class CheckpointedConfig:
    """Steps between two kept states; None is the square root of all, where memory is least."""

    every: Annotated[int | None, Int(1, 1000)] = None


@ESTIMATORS.register("checkpointed")
class Checkpointed(Backwards):
    """A piece of steps at a time; the state before each piece is kept."""

    Config = CheckpointedConfig
    config: CheckpointedConfig

    def piece(self, steps: int) -> int:
        return self.config.every or max(1, math.ceil(math.sqrt(steps)))
