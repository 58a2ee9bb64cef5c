"""Evolution strategies, plain and persistent: unbiased where that can be computed, and reproducible."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import Linearized, Outer, Problem
from metaloom.learners.tensors import InnerState, Tensors
from metaloom.testing.problems import (
    SINGLE,
    SMOOTH,
    begun,
    built,
    episode_of,
    estimate,
    estimator,
    normal,
    quadratic,
    relative_error,
    seeded,
)

WEIGHTS = {"weighting": {"kind": "meta_weight_net", "hidden": 3}}


def linear(slope: Tensor) -> Problem:
    """F(phi) = slope . phi, whatever the steps: the inner step adds phi once."""

    def outer(phi: Tensors, theta: Tensors, taken: int) -> Outer:
        return Outer(slope @ theta["theta"], torch.tensor(torch.nan), {})

    return Problem(
        steps=1,
        start=lambda phi: InnerState({"theta": torch.zeros_like(slope)}, {}),
        outer=outer,
        gradient=lambda phi, theta, index: {"theta": -phi["phi"]},
        linearized=lambda phi, theta: Linearized(
            {"theta": -phi["phi"].detach()}, lambda moved: -(phi["phi"] * moved["theta"]).sum()
        ),
        update=lambda phi, state, gradient, index: InnerState({"theta": state.theta["theta"] - gradient["theta"]}, {}),
    )


@pytest.mark.parametrize("sigma", [1e-3, 1.0])
def test_it_is_unbiased_on_a_linear_outer_loss(sigma: float) -> None:
    """E[(e . c) e] = c: the mean of many estimates misses c by no more than its standard error allows."""
    slope, phi = normal(4, seed=1), {"phi": normal(4, seed=2)}
    found = estimator("evolution_strategies", pairs=8000, sigma=sigma)(replace(linear(slope), generator=seeded(0)), phi)
    error = relative_error(found.gradient["phi"], slope)
    assert error < 3 * found.diagnostics["standard_error"] < 0.15


def test_its_error_shrinks_with_the_root_of_the_pairs() -> None:
    known = quadratic(5)
    exact = estimate("unroll", known).gradient["phi"]
    errors = [relative_error(estimate("evolution_strategies", known, pairs=n).gradient["phi"], exact) for n in (4, 400)]
    assert errors[1] < errors[0] / 3
    assert errors[1] < 0.25


def test_persistent_perturbations_see_what_was_done_in_earlier_steps() -> None:
    """After t online steps theta = t phi, so that dL/dphi = t c; one step alone, which ES sees, gives c."""
    slope, phi = normal(3, seed=1), {"phi": normal(3, seed=2)}
    one = linear(slope)
    persistent = estimator("persistent_evolution_strategies", pairs=20000, sigma=0.1, horizon=100)
    memory = persistent.begin(phi, one.start(phi))
    generator = seeded(0)
    for taken in range(1, 4):
        found = persistent(replace(one, generator=generator, memory=memory), phi)
        memory = dict(found.memory)
        error = float((found.gradient["phi"] - taken * slope).norm() / (taken * slope).norm())
        assert error < 0.06, taken


def test_particles_start_again_at_the_horizon() -> None:
    slope, phi = normal(3, seed=1), {"phi": normal(3, seed=2)}
    one = linear(slope)
    persistent = estimator("persistent_evolution_strategies", pairs=4, horizon=2)
    memory, ages = persistent.begin(phi, one.start(phi)), []
    for _ in range(5):
        found = persistent(replace(one, generator=seeded(0), memory=memory), phi)
        memory = dict(found.memory)
        ages.append(found.diagnostics["age"])
    assert ages == [0, 1, 0, 1, 0]


def backwards(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Evaluate the last item first, as workers elsewhere may."""
    answers = [function(item) for item in reversed(items)]
    return answers[::-1]


@pytest.mark.parametrize("kind", ["evolution_strategies", "persistent_evolution_strategies"])
def test_equal_seeds_give_equal_estimates_wherever_they_are_evaluated(kind: str) -> None:
    found = []
    for mapper in (None, None, backwards):
        chosen = estimator(kind, pairs=3)
        if mapper is not None:
            chosen.mapper = mapper
        known = quadratic(3)
        found.append(chosen(replace(known.problem, generator=seeded(5)), known.phi).gradient["phi"])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_without_a_generator_nothing_is_drawn() -> None:
    known = quadratic(3)
    with pytest.raises(LearnerError, match="given no generator"):
        estimator("evolution_strategies")(known.problem, known.phi)


def test_persistent_needs_an_inner_loop_that_persists() -> None:
    with pytest.raises(LearnerError, match=r"set inner\.mode: online, or use evolution_strategies"):
        built({"architecture": SMOOTH, **WEIGHTS}, SINGLE, estimator="persistent_evolution_strategies")


def test_an_online_learner_carries_the_particles_in_its_state() -> None:
    learner = built(
        {"architecture": SMOOTH, **WEIGHTS, "update": {"rate": 0.1, "momentum": 0.9, "steps": 2}},
        SINGLE,
        inner={"mode": "online"},
        estimator={"kind": "persistent_evolution_strategies", "pairs": 3},
    )
    phi, state = begun(learner)
    names = set(state.flat())
    for index in range(3):
        seen = learner.meta_step(phi, state, [episode_of(SINGLE, index)], seeded(index))
        state = learner.advance(phi, seen.state, [episode_of(SINGLE, index)], seeded(index))
    assert set(state.flat()) == names  # so that a checkpoint holds all of it
    assert int(state.estimator["age"]) == 3
    up, down = (state.estimator[f"{side}/theta/head.bias"] for side in ("up", "down"))
    assert up.shape == (3, 3)
    assert not torch.equal(up, down)
