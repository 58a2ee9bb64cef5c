r"""The exact hypergradient with little memory: backwards through the inner loop, making its steps again.

The inner loop is run once without a graph, keeping theta_t alone; then, from the last piece of k steps to the
first, each piece is made again with its graph, and its vector-Jacobian product taken:

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
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import (
    ESTIMATORS,
    Estimator,
    Hypergradient,
    Outer,
    Problem,
    detached,
    detached_outer,
)
from metaloom.learners.tensors import (
    InnerState,
    Tensors,
    add,
    as_leaves,
    derivative,
    flat_state,
    part,
    pullback,
    state_of,
    under,
)

PIECE_LOSS = "loss"


class Backwards(Estimator):
    """Exact; keeps the state before each piece of the inner loop, and one piece's graph at a time."""

    exact = True

    @abstractmethod
    def piece(self, steps: int) -> int:
        """Return how many steps are made again at a time."""

    def estimate(self, problem: Problem, phi: Tensors) -> Hypergradient:
        length = self.piece(problem.steps)
        fixed = {name: value.detach() for name, value in phi.items()}
        starts, state = list(range(0, problem.steps, length)), detached(problem.start(fixed))
        kept: list[InnerState] = []
        for index in range(problem.steps):
            if index % length == 0:
                kept.append(state)
            state = detached(problem.step(fixed, state, index))
        gradient, cotangent, outer = _verdict(problem, phi, state)
        for first, before in zip(reversed(starts), reversed(kept), strict=True):
            steps = range(first, min(first + length, problem.steps))
            here, cotangent = _through(problem, phi, before, steps, cotangent)
            gradient = add(gradient, here)
        start_phi = as_leaves(phi)
        gradient = add(gradient, pullback(flat_state(problem.start(start_phi)), cotangent, start_phi))
        return Hypergradient(gradient, detached_outer(outer), {})


def _verdict(problem: Problem, phi: Tensors, state: InnerState) -> tuple[Tensors, Tensors, Outer]:
    """Return the weighted last outer loss's gradient by phi and by the last state."""
    leaves, flat = as_leaves(phi), as_leaves(flat_state(state))
    outer = problem.outer(leaves, part(flat, "theta"), problem.steps)
    weight = 1.0 if problem.step_weights is None else problem.step_weights[-1]
    both = derivative(weight * outer.loss, under("phi", leaves) | under("state", flat))
    return part(both, "phi", optional=True), part(both, "state"), outer


def _through(
    problem: Problem, phi: Tensors, before: InnerState, steps: range, cotangent: Tensors
) -> tuple[Tensors, Tensors]:
    """Pull the cotangent of the state after some steps back to phi and the state before them.

    The outer losses on the way, where a multi-step loss weighs them, are part of the piece.
    """
    leaves, flat = as_leaves(phi), as_leaves(flat_state(before))
    state = state_of(flat)
    losses: list[Tensor] = []
    for index in steps:
        state = problem.step(leaves, state, index)
        weight = 0.0 if problem.step_weights is None else problem.step_weights[index]
        if weight > 0 and index < problem.steps - 1:  # the last verdict is where the cotangent comes from
            losses.append(weight * problem.outer(leaves, state.theta, index + 1).loss)
    after, cotangents = flat_state(state), dict(cotangent)
    if losses:
        after[PIECE_LOSS] = torch.stack(losses).sum()
        cotangents[PIECE_LOSS] = torch.ones_like(after[PIECE_LOSS])
    both = pullback(after, cotangents, under("phi", leaves) | under("state", flat))
    return part(both, "phi", optional=True), part(both, "state")


@ESTIMATORS.register("adjoint")
class Adjoint(Backwards):
    """One step at a time; every theta_t is kept."""

    def piece(self, steps: int) -> int:
        return 1


@dataclass(frozen=True)
class CheckpointedConfig:
    """Steps between two kept states; None is the square root of all, where memory is least."""

    every: Annotated[int | None, Int(1, 1000)] = None

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise LearnerError(f"outer.hypergradient.every must be at least 1, got {self.every}")


@ESTIMATORS.register("checkpointed")
class Checkpointed(Backwards):
    """A piece of steps at a time; the state before each piece is kept."""

    Config = CheckpointedConfig
    config: CheckpointedConfig

    def piece(self, steps: int) -> int:
        return self.config.every or max(1, math.ceil(math.sqrt(steps)))
