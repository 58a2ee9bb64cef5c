"""A fixed number may be a tensor: one vmap over settings is the loop over them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from metaloom.learners import ESTIMATORS
from metaloom.learners.fields import fields_of
from metaloom.learners.knowledge.update_rules import UPDATE_RULES
from metaloom.learners.solvers.gradient import GradientLearner
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import InnerState, Tensors
from metaloom.testing.problems import SINGLE, SMOOTH, begun, built, episode_of, normal, seeded

SETTINGS = {
    "sgd": ("rate", "momentum", "weight_decay"),
    "adam": ("rate", "beta1", "beta2", "weight_decay"),
    "adamw": ("rate", "beta1", "beta2", "weight_decay"),
    "adagrad": ("rate", "weight_decay"),
    "rmsprop": ("rate", "smoothing", "momentum"),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_an_inner_loop_over_a_batch_of_fixed_settings(kind: str) -> None:
    names = SETTINGS[kind]
    start, target = normal(4, seed=1), normal(4, seed=2)
    batch = 0.1 + 0.1 * torch.rand(5, len(names), dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def moved(values: list[Tensor] | list[float]) -> Tensor:
        rule = UPDATE_RULES[kind](UPDATE_RULES[kind].Config(**dict(zip(names, values, strict=True))))
        state = InnerState({"w": start}, rule.begin({"w": start}))
        for index in range(5):
            state = rule.step({}, state, {"w": state.theta["w"] - target}, index)
        return state.theta["w"]

    batched = torch.vmap(lambda row: moved(list(row)))(batch)
    looped = torch.stack([moved(row.tolist()) for row in batch])
    torch.testing.assert_close(batched, looped, rtol=1e-12, atol=1e-12)


COUNT = 4  # configurations
LEARNED = {"episodic": {"initialization": {"kind": "learned"}}, "online": {"weighting": {"kind": "meta_weight_net"}}}


def learner_of(mode: str, estimator: Any, numbers: Sequence[float | Tensor]) -> GradientLearner:
    """Build a learner of these fixed numbers: floats, or tensors."""
    rate, momentum, decay, strength = numbers
    update = {"kind": "sgd", "steps": 3, "rate": rate, "momentum": momentum, "weight_decay": decay}
    learner = {"architecture": SMOOTH, "update": update, **LEARNED[mode]}
    inner = {"proximal": strength, "mode": mode}
    found = built(learner, SINGLE, inner=inner, estimator=estimator, strategy="vmap")
    assert isinstance(found, GradientLearner)
    return found


def stacked(each: Sequence[Tensors]) -> Tensors:
    return {name: torch.stack([one[name] for one in each]) for name in each[0]}


@pytest.mark.parametrize(
    ("mode", "estimator"),
    [
        ("episodic", "unroll"),
        ("episodic", "first_order"),
        ("episodic", {"kind": "truncated", "last": 2, "first_order_start": True}),
        ("online", "unroll"),
        ("online", "one_step"),
        ("online", {"kind": "segments", "length": 2}),
    ],
)
def test_a_whole_outer_step_over_a_batch_of_configurations(mode: str, estimator: Any) -> None:
    """Each configuration has a rate, momentum, decay, proximal strength, phi and inner state of its own."""
    numbers = 0.1 + 0.1 * torch.rand(COUNT, 4, dtype=torch.float64, generator=seeded(0))
    episodes = [episode_of(SINGLE, seed) for seed in ((1, 2) if mode == "episodic" else (1,))]

    def outer_step(fixed: Sequence[float | Tensor], phi: Tensors, inner: Tensors) -> tuple[Tensors, Tensors, Tensor]:
        state = LearnerState(torch.tensor(0), InnerState.of(inner) if inner else None)
        learner = learner_of(mode, estimator, fixed)
        gradient, outers, _, _ = learner.hypergradient(phi, state, episodes, seeded(0))
        moved = {name: value - fixed[0] * gradient[name] for name, value in phi.items()}
        return gradient, moved, outers.loss

    starts = [begun(learner_of(mode, estimator, numbers[0].tolist()), seed) for seed in range(COUNT)]
    phis = stacked([phi for phi, _ in starts])
    inners = stacked([{} if state.inner is None else state.inner.flat() for _, state in starts])
    batched = torch.vmap(lambda fixed, phi, inner: outer_step(list(fixed), phi, inner))(numbers, phis, inners)
    for index in range(COUNT):
        own = [{name: value[index] for name, value in tensors.items()} for tensors in (phis, inners)]
        alone = outer_step(numbers[index].tolist(), *own)
        for found, expected in zip(tree_leaves(batched), tree_leaves(alone), strict=True):
            torch.testing.assert_close(found[index], expected, rtol=1e-12, atol=1e-12)


FLOATS = {
    "conjugate_gradient": {"tolerance": 1e-3, "damping": 0.5},
    "normal_equations": {"tolerance": 1e-3},
    "neumann": {"alpha": 0.05},
    "nystrom": {"rho": 0.5},
    "evolution_strategies": {"sigma": 0.02},
    "finite_difference": {"epsilon": 0.003},
}


def test_every_fixed_number_of_an_estimator_is_here() -> None:
    fixed = {
        kind: {name for name, field in fields_of(entry.Config).items() if float in field.types}
        for kind, entry in ESTIMATORS.items()
    }
    fixed["evolution_strategies"] |= fixed.pop("persistent_evolution_strategies")  # it has the same settings
    assert {kind: names for kind, names in fixed.items() if names} == {kind: set(row) for kind, row in FLOATS.items()}


@pytest.mark.parametrize("kind", FLOATS)
def test_an_estimator_takes_tensors_for_its_fixed_numbers(kind: str) -> None:
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in FLOATS[kind].items()}
    learned = {"weighting": {"kind": "meta_weight_net"}}

    def gradient(settings: Mapping[str, float | Tensor]) -> Tensors:
        learner = built(
            {"architecture": SMOOTH, "update": {"rate": 0.2, "steps": 5}, **learned},
            SINGLE,
            inner={"proximal": torch.tensor(4.0) if settings is tensors else 4.0},
            estimator={"kind": kind, **settings},
        )
        phi, state = begun(learner)
        return learner.meta_step(phi, state, [episode_of(SINGLE, 1)], seeded(0)).gradient

    expected = gradient(FLOATS[kind])
    for name, value in gradient(tensors).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-14)
