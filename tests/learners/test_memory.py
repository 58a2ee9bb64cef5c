"""What an estimator keeps alive: flat in the inner steps for the adjoint and the implicit ones."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from metaloom.learners import ESTIMATORS
from metaloom.learners.hypergradients.problem import Problem
from metaloom.testing.problems import (
    SINGLE,
    SMOOTH,
    as_problem,
    begun,
    built,
    episode_of,
    estimator,
    normal,
    positive_definite,
    seeded,
)
from metaloom.workers.device import LiveBytes

SIZE = 40


def problem(steps: int) -> Problem:
    """A nonlinear inner loss, so that every step of a graph must keep its tensors."""
    curvature = positive_definite(SIZE, 0)

    def slope(phi: Tensor, theta: Tensor) -> Tensor:
        return curvature @ theta + torch.sin(theta) / 2 - phi

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
        estimator(kind, **settings)(replace(problem(steps), generator=seeded(0)), {"phi": normal(SIZE, seed=1)})
    assert alive.now == 0  # no graph outlives the call
    return alive.most


FLAT: list[tuple[str, dict[str, Any]]] = [
    ("adjoint", {}),
    ("conjugate_gradient", {"iterations": 5}),
    ("neumann", {"terms": 5, "alpha": 0.1}),
    ("normal_equations", {"iterations": 5}),
    ("nystrom", {"rank": 5}),
    ("fixed_point", {"iterations": 5}),
    ("truncated", {"last": 1}),
    ("evolution_strategies", {"pairs": 2}),
    ("persistent_evolution_strategies", {"pairs": 2}),
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


def test_checkpoints_grow_with_the_root_of_the_inner_steps() -> None:
    few, many = (most_bytes("checkpointed", {}, steps) for steps in (4, 64))  # pieces of 2 and of 8 steps
    assert 2 * few < many < 5 * few


def test_every_estimator_is_measured() -> None:
    assert {kind for kind, _ in FLAT} | {"unroll", "segments", "checkpointed", "forward"} == set(ESTIMATORS)


THETA_BYTES = 8 * (6 * 32 + 32 + 32 * 3 + 3)


def live_bytes(kind: str, steps: int, **settings: Any) -> int:
    """Return the most bytes of tensors that one meta-step of a real learner holds, its graphs and states alike."""
    learner = built(
        {
            "architecture": {**SMOOTH, "hidden": [32]},
            "weighting": {"kind": "focal", "gamma": {"learn": {"start": 1.0}}},
            "update": {"kind": "sgd", "rate": 0.1, "steps": steps},
        },
        SINGLE,
        inner={"proximal": 1.0},
        estimator={"kind": kind, **settings},
    )
    phi, state = begun(learner)
    with (live := LiveBytes()):
        learner.meta_step(phi, state, [episode_of(SINGLE, 1, support=60)], seeded(0))
    return live.most


@pytest.mark.parametrize("kind", ["forward", "neumann", "fixed_point", "normal_equations"])
def test_live_tensors_do_not_grow_with_the_inner_steps(kind: str) -> None:
    assert live_bytes(kind, 60) <= 1.05 * live_bytes(kind, 6)


def test_the_adjoint_keeps_nothing_of_a_step_but_theta() -> None:
    few, many = live_bytes("adjoint", 6), live_bytes("adjoint", 60)
    assert many - few <= 1.01 * 54 * THETA_BYTES
    assert many < 0.2 * live_bytes("unroll", 60)


def test_nothing_is_left_from_one_meta_step_to_the_next() -> None:
    learner = built(
        {"architecture": SMOOTH, "weighting": {"kind": "meta_weight_net", "hidden": 6}, "update": {"steps": 3}},
        SINGLE,
        inner={"mode": "online"},
        estimator="adjoint",
    )
    phi, state = begun(learner)
    episode = episode_of(SINGLE, 1)
    live = LiveBytes()
    seen = []
    with live:
        for _ in range(6):
            state = learner.meta_step(phi, state, [episode], seeded(0)).state
            state = learner.advance(phi, state, [episode], seeded(0))
            seen.append(live.now)
    assert seen[1:] == [seen[1]] * 5


def test_more_than_the_limit_is_refused() -> None:
    with pytest.raises(MemoryError, match="it takes more than 1 KiB"), LiveBytes(limit=1024):
        torch.zeros(1000)
    with LiveBytes(limit=1024):
        torch.zeros(100)
