"""The hypergradient of the whole inner loop against central differences in float64, per component and all at once."""

from typing import Any

import pytest
import torch

from metaloom.learners.base import Learner
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.tensors import flatten, part
from metaloom.testing.problems import (
    CONTROL,
    IMAGES,
    SINGLE,
    SMOOTH,
    begun,
    built,
    episode_of,
    errors_by_slot,
    relative_error,
    seeded,
)

EXACT = ["unroll", "adjoint", "checkpointed"]
RULES: dict[str, dict[str, Any]] = {
    "sgd": {"kind": "sgd", "rate": 0.2},
    "momentum": {"kind": "sgd", "rate": 0.2, "momentum": 0.7},
    "nesterov": {"kind": "sgd", "rate": 0.2, "momentum": 0.7, "nesterov": True},
    "decay": {"kind": "sgd", "rate": 0.2, "weight_decay": 0.1},
    "adam": {"kind": "adam", "rate": 0.05},
    "adam_decay": {"kind": "adam", "rate": 0.05, "weight_decay": 0.1},
    "adamw": {"kind": "adamw", "rate": 0.05, "weight_decay": 0.1},
    "adagrad": {"kind": "adagrad", "rate": 0.05, "weight_decay": 0.1, "initial_sum": 0.1},
    "rmsprop": {"kind": "rmsprop", "rate": 0.02, "smoothing": 0.9, "momentum": 0.6},
}


def learned(per: str, start: float) -> dict[str, Any]:
    return {"learn": {"per": per, "start": start}}


COMPONENTS: dict[str, dict[str, Any]] = {
    "initialization": {"initialization": {"kind": "learned"}},
    "meta_weight_net": {"weighting": {"kind": "meta_weight_net", "hidden": 6}},
    "unnormalized": {"weighting": {"kind": "meta_weight_net", "hidden": 6, "normalize": False}},
    "focal": {"weighting": {"kind": "focal", "gamma": {"learn": {"start": 1.5}}}},
    "class_ratios": {
        "weighting": {"kind": "class_ratios", "ratio": {"learn": {}}, "balance": {"learn": {"start": 0.5}}}
    },
    "per_sample": {"weighting": {"kind": "per_sample"}},
    "softplus": {"weighting": {"kind": "per_sample", "squash": "softplus", "normalize": False}},
    "distilled": {"data": {"kind": "distilled", "per_class": 2, "learn_labels": True}},
    "label_smoothing": {"loss": {"kind": "cross_entropy", "label_smoothing": {"learn": {"start": 0.1}}}},
    "mixture": {
        "loss": {
            "kind": "mixture",
            **{
                name: {"learn": {"start": 0.4}}
                for name in ("cross_entropy", "focal", "squared", "absolute", "generalized", "gamma", "q")
            },
        }
    },
    "learned_loss": {"loss": {"kind": "ml3", "hidden": 5, "hand": {"learn": {"start": 0.5}}}},
}
EVERYTHING: dict[str, Any] = {
    name: value
    for kind in ("initialization", "unnormalized", "distilled", "label_smoothing")
    for name, value in COMPONENTS[kind].items()
}


def every_error(
    learner: dict[str, Any], *, steps: int, rule: dict[str, Any], estimator: str, **more: Any
) -> dict[str, float]:
    """Return each slot's relative error to central differences, or of another exact estimator to unrolling.

    Where an estimator runs here unrolling does too, so one comparison with the objective's values serves all of them.
    """
    task, inner, count = more.pop("task", SINGLE), more.pop("inner", None), more.pop("episodes", 2)
    settings = {"architecture": SMOOTH, **learner, "update": {**rule, "steps": steps}}
    episodes = [episode_of(task, seed) for seed in range(1, count + 1)]
    found = built(settings, task, estimator=estimator, inner=inner)
    if estimator in EXACT[1:]:
        return errors_to(built(settings, task, estimator=EXACT[0], inner=inner), found, episodes)
    return errors_by_slot(found, episodes, **more)


def errors_to(exact: Learner, found: Learner, episodes: list[Episode]) -> dict[str, float]:
    """Return each slot's relative error of one learner's hypergradient to another's."""
    phi, state = begun(exact)
    expected, result = (one.meta_step(phi, state, episodes, seeded(0)).gradient for one in (exact, found))
    assert set(expected) == set(result)
    slots = {name.split("/")[0] for name in phi}
    return {slot: relative_error(*(flatten(part(one, slot)) for one in (result, expected))) for slot in slots}


@pytest.mark.parametrize("estimator", EXACT)
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("rule", RULES)
def test_everything_composed_under_every_update_rule(rule: str, steps: int, estimator: str) -> None:
    """Initialization, rates, example weights, distilled data and loss, learned in one inner loop."""
    rate = {"rate": learned("parameter", float(RULES[rule]["rate"]))}
    errors = every_error(EVERYTHING, steps=steps, rule={**RULES[rule], **rate}, estimator=estimator)
    assert set(errors) == {"initialization", "update", "weighting", "data", "loss"}
    # the first step of Adam and RMSprop goes along sign(g): what bends g hardly moves it, and rounding is most of that
    bound = 1e-5 if RULES[rule]["kind"] != "sgd" and steps == 1 else 1e-8
    assert max(errors.values()) < bound, errors


@pytest.mark.parametrize("estimator", EXACT)
@pytest.mark.parametrize("rule", ["sgd", "momentum", "adam", "adamw"])
def test_everything_composed_through_twenty_steps(rule: str, estimator: str) -> None:
    rate = {"rate": learned("layer_step", float(RULES[rule]["rate"]) / 4)}
    errors = every_error(EVERYTHING, steps=20, rule={**RULES[rule], **rate}, estimator=estimator, episodes=1)
    assert max(errors.values()) < 1e-5, errors


@pytest.mark.parametrize("steps", [1, 3, 20])
@pytest.mark.parametrize("rule", RULES)
def test_forward_mode_under_every_update_rule(rule: str, steps: int) -> None:
    """Few learned numbers (the rate, a loss knob, a small weight net): to the last bits what unrolling gives."""
    rate = {"rate": learned("layer", float(RULES[rule]["rate"]) / 2)}
    learner = {
        "weighting": {"kind": "meta_weight_net", "hidden": 3},
        "loss": {"kind": "cross_entropy", "label_smoothing": {"learn": {"start": 0.1}}},
    }
    settings = {"architecture": SMOOTH, **learner, "update": {**RULES[rule], **rate, "steps": steps}}
    found, expected = (built(settings, SINGLE, estimator=kind) for kind in ("forward", "unroll"))
    phi, state = begun(found)
    episodes = [episode_of(SINGLE, seed) for seed in range(1 if steps == 20 else 2)]
    forward, reverse = (one.meta_step(phi, state, episodes, seeded(0)).gradient for one in (found, expected))
    for leaf, value in reverse.items():
        torch.testing.assert_close(forward[leaf], value, rtol=1e-9, atol=1e-14, msg=leaf)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("component", COMPONENTS)
def test_each_component_alone(component: str, steps: int) -> None:
    errors = every_error(COMPONENTS[component], steps=steps, rule=RULES["sgd"], estimator="unroll")
    assert len(errors) == 1
    assert max(errors.values()) < 1e-8, errors


@pytest.mark.parametrize("estimator", EXACT)
@pytest.mark.parametrize("per", ["scalar", "layer", "parameter", "step", "layer_step"])
def test_rates_at_every_granularity(per: str, estimator: str) -> None:
    errors = every_error({}, steps=3, rule={"kind": "sgd", "rate": learned(per, 0.2)}, estimator=estimator)
    assert errors["update"] < 1e-8


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "sgd", "rate": 0.2, "momentum": {"learn": {"start": 0.5}}, "weight_decay": {"learn": {"start": 0.01}}},
        {"kind": "sgd", "rate": 0.2, "momentum": {"learn": {"start": 0.5}}, "nesterov": True},
        {
            "kind": "adam",
            "rate": learned("layer", 0.05),
            "beta1": {"learn": {"start": 0.8}},
            "beta2": {"learn": {"start": 0.9}},
            "weight_decay": {"learn": {"start": 0.05}},
        },
        {
            "kind": "adamw",
            "rate": learned("layer_step", 0.05),
            "beta1": learned("layer", 0.8),
            "beta2": learned("layer", 0.9),
            "weight_decay": learned("layer", 0.05),
        },
        {
            "kind": "rmsprop",
            "rate": learned("parameter", 0.02),
            "smoothing": learned("layer", 0.9),
            "momentum": learned("layer_step", 0.5),
        },
        {"kind": "sgd", "rate": learned("layer_step", 0.2), "momentum": learned("layer", 0.5)},
        {"kind": "sgd", "rate": 0.2, "momentum": learned("step", 0.5), "weight_decay": learned("layer_step", 0.01)},
    ],
    ids=["momentum and decay", "nesterov", "adam", "adamw", "rmsprop", "momentum per layer", "momentum per step"],
)
def test_every_learned_knob_of_the_update_rules(rule: dict[str, Any]) -> None:
    for estimator in EXACT:
        assert every_error({}, steps=3, rule=rule, estimator=estimator)["update"] < 1e-8


@pytest.mark.parametrize("estimator", EXACT)
def test_the_meta_learner_lstm_with_everything_else(estimator: str) -> None:
    rule = {"kind": "meta_lstm", "hidden": 4, "rate": 0.2, "keep": 0.95, "gate_spread": 0.3}
    errors = every_error(EVERYTHING, steps=3, rule=rule, estimator=estimator)
    assert set(errors) == {"initialization", "update", "weighting", "data", "loss"}
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize("estimator", EXACT)
@pytest.mark.parametrize("trajectory", [False, True])
def test_a_learned_optimizer_with_everything_else(trajectory: bool, estimator: str) -> None:
    rule = {"kind": "learned_optimizer", "hidden": 4, "rate": learned("layer_step", 0.1)}
    inner = {"trajectory_loss": trajectory}
    errors = every_error(EVERYTHING, steps=3, rule=rule, estimator=estimator, inner=inner)
    assert set(errors) == {"initialization", "update", "weighting", "data", "loss"}
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize("estimator", EXACT)
def test_the_inner_loops_own_options(estimator: str) -> None:
    """The proximal term, the multi-step loss, a head that alone adapts, a start that each step redraws."""
    rule = {"kind": "sgd", "rate": learned("layer_step", 0.2)}
    start = {"initialization": {"kind": "learned"}}
    for inner in (
        {"proximal": 0.7},
        {"multi_step_loss": 50},
        {"proximal": 0.7, "multi_step_loss": 50},
        {"trajectory_loss": True},
    ):
        errors = every_error(start, steps=3, rule=rule, estimator=estimator, inner=inner)
        assert max(errors.values()) < 1e-8, (inner, errors)
    errors = every_error(start, steps=3, rule={**rule, "adapt": "head"}, estimator=estimator)
    assert max(errors.values()) < 1e-8
    errors = every_error(
        {"initialization": {"kind": "random", "resample": True}}, steps=3, rule=rule, estimator=estimator
    )
    assert max(errors.values()) < 1e-8


@pytest.mark.parametrize("estimator", EXACT)
@pytest.mark.parametrize("component", ["meta_weight_net", "label_smoothing", "distilled"])
def test_online(component: str, estimator: str) -> None:
    errors = every_error(
        COMPONENTS[component],
        steps=1,
        rule={"kind": "sgd", "rate": learned("scalar", 0.2), "momentum": 0.9},
        estimator=estimator,
        inner={"mode": "online"},
    )
    assert max(errors.values()) < 1e-8, errors


@pytest.mark.parametrize("estimator", EXACT)
@pytest.mark.parametrize("mode", ["episodic", "online"])
def test_weights_made_from_the_query_set_let_every_other_gradient_through(mode: str, estimator: str) -> None:
    """L2RW's weights depend on theta and on what else is learned, through two gradients: neither is cut off."""
    errors = every_error(
        {**EVERYTHING, "weighting": {"kind": "reweight"}}
        if mode == "episodic"
        else {**COMPONENTS["label_smoothing"], "weighting": {"kind": "reweight"}},
        steps=3 if mode == "episodic" else 1,
        rule={"kind": "sgd", "rate": learned("scalar", 0.2), "momentum": 0.9},
        estimator=estimator,
        inner={"mode": mode},
        length=1e-5,
    )
    assert max(errors.values()) < 1e-6, errors


@pytest.mark.parametrize("estimator", EXACT)
def test_regression(estimator: str) -> None:
    errors = every_error(
        {"initialization": {"kind": "learned"}, "weighting": {"kind": "meta_weight_net", "hidden": 6}},
        steps=3,
        rule={"kind": "sgd", "rate": learned("parameter", 0.05)},
        estimator=estimator,
        task=TaskShape("regression", (3,), 2),
    )
    assert max(errors.values()) < 1e-8, errors


@pytest.mark.parametrize("loss", ["regression_mixture", "ml3"])
def test_learned_losses_of_a_regression(loss: str) -> None:
    coefficients = {name: {"learn": {"start": 0.5}} for name in ("squared", "absolute", "log_cosh")}
    errors = every_error(
        {
            "initialization": {"kind": "learned"},
            "loss": {"kind": loss, **(coefficients if loss == "regression_mixture" else {"hidden": 5})},
        },
        steps=3,
        rule={"kind": "sgd", "rate": learned("scalar", 0.05)},
        estimator="unroll",
        task=TaskShape("regression", (3,), 2),
        length=1e-6,
    )
    assert max(errors.values()) < 1e-6, errors


@pytest.mark.parametrize("estimator", EXACT)
def test_a_shaped_reward_through_the_trajectories_it_leads_to(estimator: str) -> None:
    errors = every_error(
        {
            "initialization": {"kind": "learned"},
            "loss": {"kind": "shaped_policy_gradient", "hidden": 4, "deviation": {"learn": {"start": 0.5}}},
        },
        steps=3,
        rule={"kind": "sgd", "rate": learned("layer", 0.3)},
        estimator=estimator,
        task=CONTROL,
    )
    assert set(errors) == {"initialization", "update", "loss"}
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize("batch_norm", ["batch", "support", "per_step"])
@pytest.mark.parametrize("architecture", ["conv4", "resnet12", "resnet", "cells"])
def test_convolutions_through_every_batch_norm(architecture: str, batch_norm: str) -> None:
    """Kinks of the ReLU and of max-pooling lie densely in a network: a short difference steps over few of them."""
    sizes: dict[str, dict[str, int]] = {
        "conv4": {"channels": 4, "blocks": 2},
        "resnet12": {"width": 4},
        "resnet": {"width": 4, "blocks": 1},
        "cells": {"channels": 4, "cells": 2},
    }
    errors = every_error(
        {"architecture": {"kind": architecture, **sizes[architecture]}, "initialization": {"kind": "learned"}},
        steps=2,
        rule={"kind": "sgd", "rate": learned("layer_step", 0.05)},
        estimator="unroll",
        task=IMAGES,
        inner={"batch_norm": batch_norm},
        length=1e-8,
        directions=1,
        episodes=1,
    )
    assert max(errors.values()) < 1e-5, errors


@pytest.mark.parametrize(
    ("estimator", "relaxation"), [*((one, {}) for one in EXACT), ("unroll", {"partial": 2, "edge_normalization": True})]
)
def test_relaxed_cells_with_everything_else(estimator: str, relaxation: dict[str, Any]) -> None:
    errors = every_error(
        {**EVERYTHING, "architecture": {"kind": "cells", "channels": 4, **relaxation}},
        steps=3,
        rule={"kind": "adam", "rate": learned("layer_step", 0.01)},
        estimator=estimator,
        task=IMAGES,
        length=1e-7 if relaxation else 1e-8,
        directions=1,
        episodes=1,
    )
    assert set(errors) == {"architecture", "initialization", "update", "weighting", "data", "loss"}
    assert max(errors.values()) < 1e-5, errors


def test_an_approximation_differs_where_it_should() -> None:
    """The difference quotient of one step is close to the one-step gradient; a biased estimator is found out."""
    component, rule = COMPONENTS["meta_weight_net"], RULES["sgd"]
    cut = every_error(component, steps=3, rule=rule, estimator="one_step")["weighting"]
    quotient = every_error(component, steps=1, rule=rule, estimator="finite_difference")["weighting"]
    assert cut > 0.05
    assert quotient < 1e-3


def test_several_components_in_one_slot() -> None:
    """Losses add, weights multiply: each learned, in one inner loop."""
    together: dict[str, Any] = {
        "initialization": {"kind": "learned"},
        "weighting": [
            {"kind": "focal", "gamma": {"learn": {"start": 1.5}}},
            {"kind": "meta_weight_net", "hidden": 6},
        ],
        "loss": [
            {"kind": "cross_entropy", "label_smoothing": {"learn": {"start": 0.1}}},
            {"kind": "cross_entropy", "label_smoothing": {"learn": {"start": 0.3}}},
        ],
        "augmentation": [{"kind": "none"}, {"kind": "none"}],
    }
    for estimator in EXACT:
        errors = every_error(together, steps=3, rule=RULES["sgd"], estimator=estimator)
        assert set(errors) == {"initialization", "weighting", "loss"}
        assert max(errors.values()) < 1e-8, errors
