"""What an estimator keeps alive: flat in the inner steps for the adjoint and the implicit ones."""

from typing import Any

import pytest
import torch
from bilevel import as_problem, estimator, normal, positive_definite
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from metaloom.learners.hypergradients.problem import Problem

SIZE = 40


def problem(steps: int) -> Problem:
    """A nonlinear inner loss, so that every step of a graph must keep its tensors."""
    curvature = positive_definite(SIZE, 0)

    def slope(phi: Tensor, theta: Tensor) -> Tensor:
        return curvature @ torch.sin(theta) + theta - phi

    def outer(phi: Tensor, theta: Tensor) -> Tensor:
        return theta.square().sum()

    return as_problem(lambda p, t: -(p * t).sum(), slope, outer, SIZE, steps=steps, rate=0.1)


class Alive:
    """Counts the bytes that autograd's graphs hold, now and at most."""

    def __init__(self) -> None:
        self.now, self.most = 0, 0

    def hold(self, tensor: Tensor) -> "Held":
        return Held(self, tensor.detach())


class Held:
    """A saved tensor: counted from its saving until its graph is gone."""

    def __init__(self, alive: Alive, tensor: Tensor) -> None:
        self.alive, self.tensor, self.bytes = alive, tensor, tensor.numel() * tensor.element_size()
        alive.now += self.bytes
        alive.most = max(alive.most, alive.now)

    def __del__(self) -> None:
        self.alive.now -= self.bytes


def most_bytes(kind: str, settings: dict[str, Any], steps: int) -> int:
    alive = Alive()
    with saved_tensors_hooks(alive.hold, lambda held: held.tensor):
        estimator(kind, **settings)(problem(steps), {"phi": normal(SIZE, seed=1)})
    assert alive.now == 0  # no graph outlives the call
    return alive.most


FLAT: list[tuple[str, dict[str, Any]]] = [
    ("adjoint", {}),
    ("conjugate_gradient", {"iterations": 5}),
    ("neumann", {"terms": 5, "alpha": 0.1}),
    ("first_order", {}),
    ("one_step", {}),
    ("finite_difference", {}),
    ("displacement", {}),
    ("direct", {}),
]


@pytest.mark.parametrize(("kind", "settings"), FLAT, ids=[kind for kind, _ in FLAT])
def test_graphs_do_not_grow_with_the_inner_steps(kind: str, settings: dict[str, Any]) -> None:
    few, many = most_bytes(kind, settings, 2), most_bytes(kind, settings, 40)
    assert many <= 1.2 * few


def test_unrolling_grows_with_the_inner_steps() -> None:
    """The measure sees what there is to see."""
    assert most_bytes("unroll", {}, 40) > 8 * most_bytes("unroll", {}, 4)
