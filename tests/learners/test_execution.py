"""A loop over episodes, a batch of them, and a trace replayed: one hypergradient."""

from typing import Any

import pytest
import torch
from torch import Tensor

from metaloom.learners.base import MetaStep
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.sample_weights import WEIGHTINGS, Examples, Uniform
from metaloom.learners.tensors import Tensors
from metaloom.testing.problems import CONTROL, FEW_WAYS, IMAGES, SINGLE, SMOOTH, begun, built, episode_of, seeded

REGRESSION = TaskShape("regression", (3,), 2)
RATE = {"learn": {"per": "parameter", "start": 0.1}}
START = {"initialization": {"kind": "learned"}}
LEARNERS: dict[str, tuple[dict[str, Any], TaskShape, dict[str, Any], str]] = {
    "maml": ({**START, "update": {"steps": 2}}, SINGLE, {}, "unroll"),
    "meta_sgd": ({**START, "update": {"rate": RATE, "steps": 1}}, REGRESSION, {}, "unroll"),
    "adam": ({**START, "update": {"kind": "adam", "rate": RATE, "steps": 2}}, REGRESSION, {}, "unroll"),
    "first_order": ({**START, "update": {"steps": 2}}, SINGLE, {}, "first_order"),
    "one_step": (
        {"weighting": {"kind": "meta_weight_net", "hidden": 5}, "update": {"steps": 2}},
        SINGLE,
        {},
        "one_step",
    ),
    "proximal": ({**START, "update": {"steps": 2}}, SINGLE, {"proximal": 0.5}, "unroll"),
    "multi_step": ({**START, "update": {"steps": 2}}, SINGLE, {"multi_step_loss": 30}, "unroll"),
    "whole_task": ({**START, "data": {"kind": "whole_task"}, "update": {"steps": 2}}, SINGLE, {}, "unroll"),
    "weights": (
        {**START, "weighting": {"kind": "meta_weight_net", "hidden": 5}, "update": {"steps": 2}},
        SINGLE,
        {},
        "unroll",
    ),
    "numbered": (
        {**START, "weighting": {"kind": "per_sample"}, "update": {"steps": 2}},
        SINGLE,
        {},
        "unroll",
    ),
    "reweight": ({**START, "weighting": {"kind": "reweight"}, "update": {"steps": 2}}, SINGLE, {}, "unroll"),
    "distilled": (
        {"data": {"kind": "distilled", "learn_labels": True}, "update": {"rate": RATE, "steps": 2}},
        SINGLE,
        {},
        "unroll",
    ),
    "shaped_reward": (
        {**START, "loss": {"kind": "shaped_policy_gradient", "hidden": 5}, "update": {"rate": 0.2, "steps": 1}},
        CONTROL,
        {},
        "unroll",
    ),
    "online": (
        {"weighting": {"kind": "meta_weight_net", "hidden": 5}, "update": {"steps": 1}},
        SINGLE,
        {"mode": "online"},
        "unroll",
    ),
}
CONVOLUTIONS: dict[str, Any] = {
    "conv4": {"kind": "conv4", "channels": 4, "blocks": 2},
    "strided": {"kind": "conv4", "channels": 4, "blocks": 2, "pool": "stride"},
    "resnet12": {"kind": "resnet12", "width": 4},
    "resnet": {"kind": "resnet", "width": 4, "blocks": 1},
    "cells": {"kind": "cells", "channels": 4},
    "genotype": {"kind": "genotype", "genotype": "conv3|avg3|conv1", "channels": 4},
}


def step_of(name: str, strategy: str, calls: int = 1) -> MetaStep:
    settings, task, inner, estimator = LEARNERS[name]
    learner = built({"architecture": SMOOTH, **settings}, task, inner=inner, estimator=estimator, strategy=strategy)
    phi, state = begun(learner)
    for call in range(calls):
        step = learner.meta_step(phi, state, [episode_of(task, seed + 10 * call) for seed in range(3)], seeded(0))
        state = step.state
    return step


def assert_equal(found: MetaStep, expected: MetaStep) -> None:
    assert found.loss == pytest.approx(expected.loss, rel=1e-12)
    assert [o.losses[-1] for o in found.outcomes] == pytest.approx([o.losses[-1] for o in expected.outcomes], rel=1e-12)
    assert set(found.gradient) == set(expected.gradient)
    for name, value in expected.gradient.items():
        torch.testing.assert_close(found.gradient[name], value, rtol=1e-9, atol=1e-11)
        assert not found.gradient[name].requires_grad


@pytest.mark.parametrize("strategy", ["vmap", "traced"])
@pytest.mark.parametrize("name", LEARNERS)
def test_batched_and_traced_equal_the_loop(name: str, strategy: str) -> None:
    assert_equal(step_of(name, strategy), step_of(name, "loop"))


@pytest.mark.parametrize("name", ["multi_step", "distilled"])
def test_a_trace_is_right_for_other_episodes_too(name: str) -> None:
    assert_equal(step_of(name, "traced", calls=2), step_of(name, "loop", calls=2))


@pytest.mark.parametrize("batch_norm", ["batch", "support", "frozen", "per_step"])
@pytest.mark.parametrize("architecture", CONVOLUTIONS)
def test_convolutions_batched_equal_the_loop(architecture: str, batch_norm: str) -> None:
    """torch's own batch norm is off by up to 5% here."""
    steps = {}
    for strategy in ("loop", "vmap"):
        learner = built(
            {"architecture": CONVOLUTIONS[architecture], **START, "update": {"steps": 2}},
            IMAGES,
            inner={"batch_norm": batch_norm},
            strategy=strategy,
        )
        phi, state = begun(learner)
        steps[strategy] = learner.meta_step(phi, state, [episode_of(IMAGES, 0), episode_of(IMAGES, 1)], seeded(0))
    assert_equal(steps["vmap"], steps["loop"])
    for name, value in steps["loop"].state.flat().items():
        torch.testing.assert_close(steps["vmap"].state.flat()[name], value, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("strategy", ["vmap", "traced"])
def test_frozen_statistics_that_appear_later_do_not_break_a_trace(strategy: str) -> None:
    architecture = {"kind": "conv4", "channels": 4, "blocks": 1}
    learner = built(
        {"architecture": architecture, **START, "update": {"steps": 1}},
        IMAGES,
        inner={"batch_norm": "frozen"},
        strategy=strategy,
    )
    phi, state = begun(learner)
    for seed in range(3):
        state = learner.meta_step(phi, state, [episode_of(IMAGES, seed)], seeded(0)).state
    assert state.running


def test_the_number_of_episodes_and_the_precision_may_change() -> None:
    learner = built({"architecture": SMOOTH, **START, "update": {"steps": 1}}, SINGLE, strategy="traced")
    phi, state = begun(learner)
    for count in (2, 3):
        found = learner.meta_step(phi, state, [episode_of(SINGLE, seed) for seed in range(count)], seeded(0))
        assert len(found.outcomes) == count
    narrow = {name: value.float() for name, value in phi.items()}
    episode = episode_of(SINGLE, 0).to(torch.device("cpu"), torch.float32)
    found = learner.meta_step(narrow, state, [episode, episode], seeded(0))
    assert all(value.dtype == torch.float32 for value in found.gradient.values())


@pytest.mark.parametrize("kind", ["adjoint", "conjugate_gradient", "neumann", "finite_difference", "displacement"])
def test_what_cannot_be_batched_says_so(kind: str) -> None:
    knowledge = {"weighting": {"kind": "meta_weight_net"}} if kind == "finite_difference" else START
    with pytest.raises(LearnerError, match=r"outer\.strategy: .* cannot be batched; use loop"):
        built({"architecture": SMOOTH, **knowledge}, SINGLE, inner={"proximal": 1.0}, estimator=kind, strategy="vmap")


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(LearnerError, match=r"outer\.strategy: no strategy is named 'vmapp'; did you mean 'vmap'\?"):
        built({"architecture": SMOOTH, **START}, SINGLE, strategy="vmapp")


@pytest.mark.parametrize(
    ("architecture", "task", "chosen"),
    [
        ({"kind": "mlp", "hidden": [40, 40]}, SINGLE, "traced"),
        ({"kind": "mlp", "hidden": [512]}, SINGLE, "loop"),
        ({"kind": "mlp", "hidden": []}, SINGLE, "traced"),
        ({"kind": "conv4", "channels": 4, "blocks": 2}, IMAGES, "by_size"),
        ({"kind": "resnet12", "width": 4}, IMAGES, "loop"),
    ],
)
def test_the_rule_of_auto(architecture: dict[str, Any], task: TaskShape, chosen: str) -> None:
    assert built({"architecture": architecture, **START}, task, strategy="auto").strategy == chosen


@pytest.mark.parametrize(
    ("tasks", "channels", "batched"), [(3, 4, False), (4, 4, True), (4, 512, False), (40, 128, False)]
)
def test_small_convolutions_of_several_tasks_are_batched(tasks: int, channels: int, batched: bool) -> None:
    task, architecture = TaskShape("classification", (1, 16, 16), 3), {"kind": "conv4", "channels": channels}
    learner = built({"architecture": architecture, **START, "update": {"steps": 3}}, task, strategy="auto")
    assert learner.execution.of([episode_of(task, 0)] * tasks).functional == batched


def test_learned_images_are_not_batched() -> None:
    settings = {"architecture": CONVOLUTIONS["conv4"], "data": {"kind": "distilled"}}
    assert built(settings, IMAGES, strategy="auto").strategy == "loop"


class Unbatchable(Uniform):
    """Reads its values, which vmap does not allow."""

    batchable = False

    def weights(self, phi: Tensors, examples: Examples) -> Tensor:
        return torch.full_like(examples.losses, 1.0 if float(examples.losses.detach().mean()) > 0 else 2.0)


def test_a_component_that_cannot_be_batched_is_looped_over_and_vmap_refused() -> None:
    WEIGHTINGS.add("unbatchable", Unbatchable)
    learner = {"architecture": SMOOTH, "weighting": {"kind": "unbatchable"}, "initialization": {"kind": "learned"}}
    try:
        assert built(learner, SINGLE, strategy="auto").strategy == "loop"
        assert (
            built(
                {**learner, "weighting": [{"kind": "uniform"}, {"kind": "unbatchable"}]}, SINGLE, strategy="auto"
            ).strategy
            == "loop"
        )
        with pytest.raises(LearnerError, match=r"outer\.strategy: learner\.weighting cannot be batched; use loop"):
            built(learner, SINGLE, strategy="vmap")
    finally:
        WEIGHTINGS.remove("unbatchable")


@pytest.mark.parametrize("strategy", ["vmap", "traced"])
@pytest.mark.parametrize("task", [SINGLE, FEW_WAYS])
def test_a_learned_loss_runs_episode_by_episode(task: TaskShape, strategy: str) -> None:
    """``F.one_hot`` reads its values, so that vmap stopped on a loss network's labels."""
    learner = {"architecture": SMOOTH, "initialization": {"kind": "random"}, "loss": {"kind": "ml3", "hand": 0.3}}
    found = []
    for one in (strategy, "loop"):
        made = built(learner, task, strategy=one)
        phi, state = begun(made)
        found.append(made.meta_step(phi, state, [episode_of(task, seed) for seed in (1, 2)], seeded(0)).gradient)
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-13)
