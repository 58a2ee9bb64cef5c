"""Online training in which nothing is learned: the pass takes the real inner step, and it is the one that two take."""

from typing import Any

import pytest
import torch

from metaloom.learners.hypergradients.problem import solution
from metaloom.learners.solvers.gradient import GradientLearner
from metaloom.learners.state import LearnerState
from metaloom.testing.problems import IMAGES, SINGLE, begun, built, episode_of, seeded

SGD = {"kind": "sgd", "rate": 0.1, "momentum": 0.9, "steps": 2}


def online(network: dict[str, Any], **more: Any) -> GradientLearner:
    """Return plain training of a network."""
    task = SINGLE if network["kind"] == "mlp" else IMAGES
    inner = {"mode": "online", **more.pop("inner", {})}
    learner = built({"architecture": network, "update": SGD, **more}, task, inner=inner)
    assert isinstance(learner, GradientLearner)
    return learner


@pytest.mark.parametrize("batch_norm", ["batch", "frozen"])
@pytest.mark.parametrize("network", [{"kind": "mlp", "hidden": [5]}, {"kind": "conv4", "channels": 4, "blocks": 2}])
def test_the_step_is_taken_once_and_is_the_same(network: dict[str, Any], batch_norm: str) -> None:
    learner = online(network, inner={"batch_norm": batch_norm})
    phi, once = begun(learner)
    assert phi == {}
    twice = once
    for step in range(3):
        episode = episode_of(learner.task, step)
        taken = learner.meta_step(phi, once, [episode], seeded(step))
        assert taken.advanced
        once = taken.after(once)
        # the pass that a learned phi needs, and then the real step
        _, outers, _, after = learner.hypergradient(phi, twice, [episode], seeded(step))
        twice = learner.advance(phi, after, [episode], seeded(step))
        assert taken.loss == float(outers.loss.mean())
        assert_equal(once, twice)


def assert_equal(one: LearnerState, other: LearnerState) -> None:
    """Compare every tensor of two states to the bit."""
    found, wanted = one.moving(), other.moving()
    assert found.keys() == wanted.keys() and found
    assert all(torch.equal(value, wanted[name]) for name, value in found.items())


def test_the_inner_state_is_that_of_the_inner_loop() -> None:
    learner = online({"kind": "mlp", "hidden": [5]})
    phi, state = begun(learner)
    episode = episode_of(learner.task, 1)
    after = learner.meta_step(phi, state, [episode], seeded(0)).after(state)
    assert after.inner is not None and state.inner is not None
    problem = learner.loop.problem(lambda phi: state.inner, episode)
    assert torch.equal(after.theta["head.weight"], solution(problem, {}).theta["head.weight"])
    assert not torch.equal(after.theta["head.weight"], state.theta["head.weight"])


@pytest.mark.parametrize(
    "more",
    [
        {"augmentation": {"kind": "rand_augment"}},
        {"inner": {"batch_size": 2}},
        {"initialization": {"kind": "random", "resample": True}},
    ],
    ids=str,
)
def test_a_step_that_draws_anew_is_taken_after_the_pass(more: dict[str, Any]) -> None:
    learner = online({"kind": "conv4", "channels": 4, "blocks": 2}, **more)
    phi, state = begun(learner)
    assert not learner.meta_step(phi, state, [episode_of(learner.task, 1)], seeded(0)).advanced


def test_several_episodes_are_stepped_on_in_turn() -> None:
    learner = online({"kind": "mlp", "hidden": [5]})
    phi, state = begun(learner)
    episodes = [episode_of(learner.task, 1), episode_of(learner.task, 2)]
    assert not learner.meta_step(phi, state, episodes, seeded(0)).advanced
