"""Gradient and distribution matching: the distances by hand, their exact gradients, and what they refuse."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from metaloom.learners.build import make_config
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.distilled_data import cosines
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.convolutional import ConvNet, ConvNetConfig, instance_norm
from metaloom.learners.solvers.matching import MatchingLearner
from metaloom.learners.tensors import InnerState, Tensors
from metaloom.testing.problems import (
    IMAGES,
    SINGLE,
    SMOOTH,
    begun,
    built,
    central_difference,
    episode_of,
    errors_by_slot,
    normal,
    seeded,
)

KINDS = ["gradient_matching", "distribution_matching"]


def matching(kind: str, **changes: Any) -> MatchingLearner:
    data = {"kind": kind, "per_class": 2, **changes.pop("data", {})}
    learner = {
        "architecture": SMOOTH,
        "initialization": {"kind": "random"},
        "update": {"steps": 1, "rate": 0.2},
        "data": data,
        **changes,
    }
    found = built(learner, SINGLE)
    assert isinstance(found, MatchingLearner)
    return found


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_distance(kind: str, labels: bool) -> None:
    learner = matching(kind, data={"learn_labels": labels and kind == "gradient_matching"})
    errors = errors_by_slot(learner, [episode_of(SINGLE, 1), episode_of(SINGLE, 2)])
    assert errors["data"] < 1e-8


@pytest.mark.parametrize("kind", KINDS)
def test_on_images_through_the_papers_network(kind: str) -> None:
    """Kinks of the ReLU lie densely: a short difference steps over few of them."""
    network = {"kind": "convnet", "channels": 4, "blocks": 2}
    learner = built({"architecture": network, "data": {"kind": kind}, "update": {"steps": 1}, **START}, IMAGES)
    assert errors_by_slot(learner, [episode_of(IMAGES, 1)], length=1e-8, directions=1)["data"] < 1e-5


START: dict[str, Any] = {"initialization": {"kind": "random", "resample": True}}


@pytest.mark.parametrize("kind", KINDS)
def test_the_networks_along_the_way_are_constants(kind: str) -> None:
    """With two steps the second network depends on the examples, and the gradient holds it where it is."""
    learner = matching(kind, update={"steps": 2, "rate": 0.2})
    phi, state = begun(learner)
    episode = episode_of(SINGLE, 1)
    way = learner._networks(phi, state, episode)
    thetas = [{name: value.clone() for name, value in one.items()} for one in way]
    assert len(thetas) == 2 and not torch.equal(thetas[0]["head.weight"], thetas[1]["head.weight"])
    found = learner.meta_step(phi, state, [episode], seeded(0))

    def held(moved: Tensors) -> float:
        one = matching(kind)
        states = [replace(state, inner=InnerState(theta, {})) for theta in thetas]
        return sum(one.objective(moved, at, [episode], seeded(0)) for at in states)

    assert found.loss == pytest.approx(held(phi), rel=1e-12)
    direction = found.gradient
    slope = central_difference(held, phi, direction, 1e-4)
    assert slope == pytest.approx(sum(float(value.square().sum()) for value in direction.values()), rel=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_what_its_gradient_leaves_out_is_said_where_there_is_a_second_network(kind: str) -> None:
    assert matching(kind).approximations == {}
    learner = matching(kind, update={"steps": 2, "rate": 0.2})
    errors = errors_by_slot(learner, [episode_of(SINGLE, 1)])
    assert errors["data"] > 1e-5 and "count as constants" in learner.approximations["data"]


def test_the_gradient_distance_by_hand() -> None:
    """One minus the cosine of each output's row, summed over weights and classes; biases are left out."""
    learner = matching("gradient_matching", data={"per_class": 1})
    phi, state = begun(learner)
    episode = episode_of(SINGLE, 1)
    theta = state.theta

    def slope(x: torch.Tensor, label: int) -> Tensors:
        leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
        hidden = torch.tanh(x @ leaves["layer0.weight"].T + leaves["layer0.bias"])
        outputs = hidden @ leaves["head.weight"].T + leaves["head.bias"]
        loss = torch.nn.functional.cross_entropy(outputs, torch.full((len(x),), label))
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))

    total = 0.0
    for label in range(3):
        own = slope(phi["data/examples"][label : label + 1], label)
        real = slope(episode.query_x[episode.query_y == label], label)
        for name in ("layer0.weight", "head.weight"):
            for left, right in zip(own[name], real[name], strict=True):
                total += 1 - float(left @ right / (left.norm() * right.norm() + 1e-6))
    assert learner.objective(phi, state, [episode], seeded(0)) == pytest.approx(total, rel=1e-12)


def test_a_row_without_a_gradient_counts_one_and_has_a_finite_slope() -> None:
    left = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    found = cosines(left, normal(2, 3, seed=0))
    assert torch.equal(found, torch.zeros(2, dtype=torch.float64))
    assert torch.isfinite(torch.autograd.grad(found.sum(), left)[0]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_examples_that_are_the_real_ones_have_no_distance(kind: str) -> None:
    learner = matching(kind)
    phi, state = begun(learner)
    x = phi["data/examples"]
    episode = replace(episode_of(SINGLE, 1), query_x=x, query_y=torch.arange(3).repeat_interleave(2))
    assert (
        learner.objective(phi, state, [episode], seeded(0)) < 0.01
    )  # the 1e-6 beside the lengths' product, where a row is short


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_that_the_batch_lacks_is_passed_over(kind: str) -> None:
    learner = matching(kind)
    phi, state = begun(learner)
    episode = episode_of(SINGLE, 1)
    kept = episode.query_y != 2
    episode = replace(episode, query_x=episode.query_x[kept], query_y=episode.query_y[kept])
    gradient = learner.meta_step(phi, state, [episode], seeded(0)).gradient["data/examples"]
    assert float(gradient[:4].abs().min()) > 0
    assert float(gradient[4:].abs().max()) == 0


@pytest.mark.parametrize(
    ("changes", "inner", "estimator", "message"),
    [
        ({"initialization": {"kind": "learned"}}, {}, "auto", r"gives no signal to learner\.initialization"),
        ({"update": {"rate": {"learn": {"start": 0.1}}}}, {}, "auto", r"gives no signal to learner\.update"),
        ({"weighting": {"kind": "focal"}}, {}, "auto", r"takes no part of learner\.weighting; remove it"),
        ({}, {"mode": "online"}, "auto", r"needs inner\.mode episodic"),
        ({}, {}, "one_step", r"outer\.hypergradient: prediction matching takes auto or unroll, not one_step"),
    ],
)
def test_what_plays_no_part_is_refused(
    changes: dict[str, Any], inner: dict[str, Any], estimator: str, message: str
) -> None:
    learner = {"architecture": SMOOTH, "initialization": {"kind": "random"}, "data": {"kind": "gradient_matching"}}
    with pytest.raises(LearnerError, match=message):
        built({**learner, **changes}, SINGLE, inner=inner, estimator=estimator)


def test_instance_norm_is_torchs_and_no_prediction_depends_on_the_batch() -> None:
    x, weight, bias = normal(3, 2, 4, 4, seed=0), normal(2, seed=1), normal(2, seed=2)
    expected = torch.nn.functional.instance_norm(x, weight=weight, bias=bias)
    torch.testing.assert_close(instance_norm(x, weight, bias), expected, rtol=1e-12, atol=1e-12)
    network = ConvNet(make_config(ConvNetConfig, {"channels": 4, "blocks": 2}, "learner.architecture"), IMAGES)
    theta = network.parameters(seeded(0))
    images = normal(5, *IMAGES.inputs, seed=3).float()
    whole = network.outputs(theta, images, Normalization(), {})
    alone = network.outputs(theta, images[:1], Normalization(), {})
    torch.testing.assert_close(whole[:1], alone, rtol=1e-5, atol=1e-6)


def test_a_network_too_deep_for_the_images_is_refused() -> None:
    with pytest.raises(LearnerError, match=r"architecture\.blocks: 4 halvings leave nothing of 8x8 images"):
        built({"architecture": {"kind": "convnet", "blocks": 4}}, IMAGES).init(seeded(0))
