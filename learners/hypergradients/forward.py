r"""The exact hypergradient in one pass forwards, for a few learned values.

Franceschi, Donini, Frasconi and Pontil, 2017, https://arxiv.org/abs/1703.01785, algorithm 2; in recurrent
networks real-time recurrent learning (Williams and Zipser, 1989):

    Z_0 = d start / dphi,    Z_{t+1} = A_t Z_t + B_t,    A_t = d step_t / d theta_t,  B_t = d step_t / dphi
    dF/dphi = dL/dphi + Z_T^T dL/dtheta_T

with Z_t of one column per learned number: time T (1 + O) gradients, memory O |theta|, whatever T. For O up to a
few tens (rates, decays, temperatures) and long inner loops. All columns are pushed at once, by vmap over jvp.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar

import torch

from metaloom.learners.domains import Int
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import ESTIMATORS, Estimator, Hypergradient, Outer, Problem
from metaloom.learners.tensors import InnerState, Tensors, detach, flatten, unflatten

Pushed = TypeVar("Pushed", bound=InnerState | Outer)


@dataclass(frozen=True)
class ForwardConfig:
    """The most learned numbers it takes on: each costs about as much as an inner loop."""

    limit: Annotated[int, Int(1, 10_000)] = 64


@ESTIMATORS.register("forward")
class Forward(Estimator):
    """Exact; pushes d theta / d phi along with theta."""

    Config = ForwardConfig
    config: ForwardConfig
    exact = True
    functional = True

    def estimate(self, problem: Problem, phi: Tensors) -> Hypergradient:
        numbers = sum(value.numel() for value in phi.values())
        if numbers == 0:
            raise LearnerError("outer.hypergradient: forward was given nothing that is learned")
        if numbers > self.config.limit:
            raise LearnerError(
                f"outer.hypergradient: forward pushes one column for each learned number, and {numbers:,} are learned "
                f"(limit: {self.config.limit}); use adjoint or checkpointed, learn fewer (such as per: scalar), or "
                "raise outer.hypergradient.limit"
            )
        fixed = detach(phi)
        columns = _identity(fixed)
        state, moved = _push(problem.start, (fixed,), (columns,))
        weighted, weights = [], problem.weights
        for taken in range(min(1, problem.steps), problem.steps + 1):
            if taken > 0:
                state, moved = _push(partial(_step, problem, taken - 1), (fixed, state), (columns, moved))
            if (weight := weights[max(taken - 1, 0)]) > 0 or taken == problem.steps:
                evaluate = partial(_outer, problem, taken)
                outer, tangents = _push(evaluate, (fixed, state.theta), (columns, moved.theta))
                weighted.append(weight * tangents.loss)
        total = sum(weighted[1:], weighted[0])
        return Hypergradient(unflatten(total, fixed), outer.detached(), {"columns": float(numbers)})


def _step(problem: Problem, index: int, phi: Tensors, state: InnerState) -> InnerState:
    return problem.step(phi, state, index)


def _outer(problem: Problem, taken: int, phi: Tensors, theta: Tensors) -> Outer:
    outer = problem.outer(phi, theta, taken)
    return outer._replace(accuracy=outer.accuracy.detach())


def _identity(phi: Tensors) -> Tensors:
    """Return one direction per number of phi, along dimension 0 of every leaf."""
    like = flatten(phi)
    basis = torch.eye(like.numel(), dtype=like.dtype, device=like.device)
    pieces = basis.split_with_sizes([value.numel() for value in phi.values()], dim=1)
    return {name: piece.reshape(-1, *value.shape) for (name, value), piece in zip(phi.items(), pieces, strict=True)}


def _push(function: Callable[..., Pushed], point: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Pushed, Pushed]:
    """Return ``function`` at a point, and its derivative along every column (dimension 0) of the tangents."""

    def column(*directions: Any) -> Any:
        return torch.func.jvp(function, point, directions)

    point_and_columns: Any = (None, 0)  # what does not depend on the column is computed once
    every: tuple[Pushed, Pushed] = torch.func.vmap(column, out_dims=point_and_columns, randomness="same")(*tangents)
    return every
