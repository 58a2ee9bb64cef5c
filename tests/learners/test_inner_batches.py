"""Mini-batches of the inner loop: which examples a step sees, and what that means for every estimator and strategy."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from metaloom.learners import ESTIMATORS
from metaloom.learners.base import Learner
from metaloom.learners.episode import Episode
from metaloom.learners.errors import LearnerError
from metaloom.learners.solvers.slots import batches
from metaloom.learners.tensors import Tensors, flatten
from metaloom.testing.problems import (
    CONTROL,
    FEW_WAYS,
    IMAGES,
    SINGLE,
    begun,
    built,
    episode_of,
    errors_by_slot,
    seeded,
)

LINEAR = {"kind": "mlp", "hidden": []}
START = {"kind": "learned"}


def learner_with(size: int | None, task: Any = FEW_WAYS, **sections: Any) -> Learner:
    estimator, strategy = sections.pop("estimator", None), sections.pop("strategy", "loop")
    inner = sections.pop("inner", {}) | ({} if size is None else {"batch_size": size})
    settings = {"architecture": LINEAR, "initialization": START, "update": {"rate": 0.3, "steps": 4}, **sections}
    return built(settings, task, inner=inner, estimator=estimator, strategy=strategy)


def gradient_of(learner: Learner, task: Any = FEW_WAYS, seed: int = 0) -> Tensors:
    phi, state = begun(learner)
    return learner.meta_step(phi, state, [episode_of(task, one) for one in (1, 2)], seeded(seed)).gradient


def test_examples_are_taken_in_turn_and_each_round_has_all() -> None:
    rows = batches(6, 4, 5, seed=1)
    assert rows.shape == (6, 4)
    for taken in rows.flatten().split(6):
        assert sorted(taken.tolist()) == list(range(6))


def test_a_steps_examples_do_not_depend_on_how_many_follow() -> None:
    assert torch.equal(batches(7, 3, 4, seed=5), batches(7, 3, 20, seed=5)[:5])
    assert not torch.equal(batches(7, 3, 4, seed=5), batches(7, 3, 4, seed=6))


def drawn(learner: Learner, episode: Episode, steps: int, seed: int) -> torch.Tensor:
    slots, phi = learner.slots, begun(learner)[0]  # type: ignore[attr-defined]
    made = slots.draw(phi, episode, steps, seeded(seed), training=True, batch_size=learner.inner.batch_size)  # type: ignore[attr-defined]
    rows: torch.Tensor = made.noise["batch/rows"]
    return rows


def test_the_steps_are_those_of_a_hand_written_loop() -> None:
    learner, episode = learner_with(2), episode_of(FEW_WAYS, 1)
    phi, state = begun(learner)
    result = learner.meta_step(phi, state, [episode], seeded(0))
    rows = drawn(learner, episode, 4, 0)
    leaves = {name: one.detach().requires_grad_() for name, one in phi.items()}
    weight, bias = leaves["initialization/head.weight"], leaves["initialization/head.bias"]
    for step in range(4):
        x, y = episode.support_x[rows[step]], episode.support_y[rows[step]]
        loss = F.cross_entropy(F.linear(x, weight, bias), y)
        slopes = torch.autograd.grad(loss, [weight, bias], create_graph=True)
        weight, bias = weight - 0.3 * slopes[0], bias - 0.3 * slopes[1]
    total = F.cross_entropy(F.linear(episode.query_x, weight, bias), episode.query_y)
    exact = dict(zip(phi, torch.autograd.grad(total, list(leaves.values())), strict=True))
    torch.testing.assert_close(result.gradient, exact, rtol=1e-12, atol=1e-14)


def test_batches_of_all_examples_are_the_whole_support_set_bit_for_bit() -> None:
    whole = gradient_of(learner_with(None))
    for size in (6, 100):
        found = gradient_of(learner_with(size))
        assert all(torch.equal(found[name], value) for name, value in whole.items())


def test_equal_seeds_give_equal_steps_and_others_do_not() -> None:
    learner = learner_with(2)
    first, again, other = (gradient_of(learner, seed=seed) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], value) for name, value in again.items())
    assert not all(torch.equal(first[name], value) for name, value in other.items())


LEARNED: list[dict[str, Any]] = [
    {"weighting": {"kind": "per_sample"}},
    {"weighting": {"kind": "meta_weight_net", "hidden": 4}},
    {"weighting": {"kind": "reweight"}},
    {"data": {"kind": "distilled", "per_class": 2, "learn_labels": True}},
    {"loss": {"kind": "cross_entropy", "label_smoothing": {"learn": {"start": 0.1}}}},
    {"update": {"kind": "adam", "rate": {"learn": {"per": "step", "start": 0.1}}, "epsilon": 0.1, "steps": 4}},
]


@pytest.mark.parametrize("learned", LEARNED, ids=lambda one: str(next(iter(one.values()))["kind"]))
def test_what_is_learned_has_its_gradient(learned: Mapping[str, Any]) -> None:
    learner = learner_with(4, SINGLE, **learned)
    assert max(errors_by_slot(learner, [episode_of(SINGLE, 1)]).values()) < 1e-8


@pytest.mark.parametrize("kind", [kind for kind in ESTIMATORS if not ESTIMATORS[kind].online_only])
def test_every_estimator_is_right_or_refused(kind: str) -> None:
    weighted: dict[str, Any] = {"weighting": {"kind": "per_sample"}, "initialization": {"kind": "random"}}
    if ESTIMATORS[kind].at_solution:
        with pytest.raises(LearnerError, match=r"solution of one inner problem, but with inner\.batch_size each step"):
            learner_with(4, SINGLE, estimator=kind, **weighted)
        return
    try:
        chosen = {"kind": kind, **({"sides": 2, "epsilon": 1e-4} if kind == "finite_difference" else {})}
        found = gradient_of(learner_with(4, SINGLE, estimator=chosen, **weighted), SINGLE)
    except LearnerError as error:
        assert "no signal" in str(error)
        return
    like = {"finite_difference": "one_step", "truncated": "unroll", "segments": "unroll"}
    exact = gradient_of(
        learner_with(4, SINGLE, estimator=like.get(kind, "unroll" if ESTIMATORS[kind].exact else kind), **weighted),
        SINGLE,
    )
    bound = 1e-4 if kind == "finite_difference" else 1e-10
    assert float((flatten(found) - flatten(exact)).norm() / flatten(exact).norm()) < bound


@pytest.mark.parametrize("strategy", ["vmap", "traced"])
def test_every_strategy_gives_the_same(strategy: str) -> None:
    found, loop = (gradient_of(learner_with(2, strategy=one)) for one in (strategy, "loop"))
    torch.testing.assert_close(found, loop, rtol=1e-12, atol=1e-14)


def test_an_augmentation_draws_for_the_examples_of_a_step() -> None:
    policy = {"kind": "dada", "operations": ["rotate", "contrast"], "relaxation": "soft"}
    learner = learner_with(4, IMAGES, augmentation=policy, architecture={**LINEAR, "hidden": [3], "activation": "tanh"})
    assert max(errors_by_slot(learner, [episode_of(IMAGES, 1)]).values()) < 1e-6


def test_an_evaluated_task_and_an_adapted_one_see_the_same_steps() -> None:
    learner, episode = learner_with(2), episode_of(FEW_WAYS, 1)
    phi, state = begun(learner)
    outcome = learner.evaluate(phi, state, episode, seeded(5))
    adapted = learner.adapt(phi, state, episode.support, seeded(5))
    found = F.nll_loss(adapted.predict(episode.query_x).log(), episode.query_y)
    assert float(found) == pytest.approx(outcome.losses[-1], rel=1e-12)
    assert outcome == learner.evaluate(phi, state, replace(episode, training=False), seeded(5))


def test_an_online_inner_loop_takes_batches_too() -> None:
    learner = built(
        {"architecture": LINEAR, "weighting": {"kind": "per_sample"}, "update": {"rate": 0.3, "steps": 2}},
        SINGLE,
        inner={"mode": "online", "batch_size": 3},
    )
    phi, state = begun(learner)
    after = learner.advance(phi, state, [episode_of(SINGLE, 1)], seeded(0))
    assert not torch.equal(after.theta["head.weight"], state.theta["head.weight"])
    assert max(errors_by_slot(learner, [episode_of(SINGLE, 1)]).values()) < 1e-8


def test_what_has_no_batches_is_refused() -> None:
    with pytest.raises(LearnerError, match=r"inner\.batch_size: a control task takes all of its own examples"):
        built({"architecture": LINEAR}, CONTROL, inner={"batch_size": 2})
    with pytest.raises(LearnerError, match=r"inner\.batch_size: gradient_matching compares all examples at once"):
        built({"data": {"kind": "gradient_matching"}}, IMAGES, inner={"batch_size": 2})
    with pytest.raises(LearnerError, match=r"inner\.batch_size: got 0; allowed: a whole number or null, at least 1"):
        learner_with(0)
