"""The solvers' own behaviour: joint pre-training, prototypes, neighbours, Reptile, Meta-Weight-Net, distillation."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from metaloom.learners import SLOTS
from metaloom.learners.base import Learner
from metaloom.learners.build import make_component
from metaloom.learners.episode import TaskShape
from metaloom.learners.knowledge.sample_weights import Examples
from metaloom.learners.networks.base import Network
from metaloom.learners.networks.batch_norm import MOMENTUM, Normalization
from metaloom.learners.solvers.amortized import AmortizedLearner
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.gradient import GradientLearner
from metaloom.learners.solvers.metric import Prototypes, class_means
from metaloom.learners.solvers.multi_step_loss import multi_step_weights
from metaloom.learners.state import LearnerState
from metaloom.testing.problems import IMAGES, SINGLE, SMOOTH, begun, built, episode_of, normal, seeded
from tests.support.registry_rows import COMPONENT_ROWS

FEW_SHOT = TaskShape("classification", (6,), 3, classes=9)
START: dict[str, Any] = {"initialization": {"kind": "learned"}}
CONV = {"kind": "conv4", "channels": 4, "blocks": 2}


def gradient_learner(learner: Learner) -> GradientLearner:
    assert isinstance(learner, GradientLearner)
    return learner


def test_joint_pretraining_trains_one_head_over_all_classes_and_starts_tasks_from_zeros() -> None:
    learner = built(
        {"architecture": SMOOTH, "prediction": {"kind": "joint"}, **START, "update": {"steps": 2}}, FEW_SHOT
    )
    phi, state = begun(learner)
    assert phi["joint_head/head.weight"].shape == (9, 5)
    assert "initialization/head.weight" not in phi
    episode = replace(episode_of(FEW_SHOT, 0), class_ids=torch.tensor([7, 2, 4]))
    seen = learner.meta_step(phi, state, [episode], seeded(0))
    touched = seen.gradient["joint_head/head.bias"]
    assert set(touched.argsort()[:3].tolist()) == {7, 2, 4}  # only these are pulled up
    assert learner.evaluate(phi, state, episode, seeded(0)).losses[0] == pytest.approx(float(torch.tensor(3.0).log()))


@pytest.mark.parametrize("prediction", ["linear", "joint", "prototypes"])
def test_frozen_statistics_are_gathered_and_used(prediction: str) -> None:
    """Without them, a frozen evaluation would fall back to the query batch's own: transductive, unsaid."""
    task = replace(IMAGES, single_task=False)
    steps = {"update": {"steps": 1}} if SOLVERS[prediction].needs_steps else {}
    settings = {"architecture": CONV, "prediction": {"kind": prediction}, **START, **steps}
    learner = built(settings, task, inner={"batch_norm": "frozen"})
    phi, state = begun(learner)
    episode = episode_of(task, 0)
    first = learner.meta_step(phi, state, [episode], seeded(0)).state
    second = learner.meta_step(phi, first, [episode_of(task, 1)], seeded(0)).state
    fresh = learner.meta_step(phi, state, [episode_of(task, 1)], seeded(0)).state
    before, after, own = (one.running["norm0.mean"] for one in (first, second, fresh))
    torch.testing.assert_close(after, torch.lerp(before, own, MOMENTUM))
    adapted = learner.adapt(phi, second, episode.support, seeded(0))
    together, alone = adapted.predict(episode.query_x), adapted.predict(episode.query_x[:1])
    torch.testing.assert_close(together[:1], alone)  # inductive: the other queries do not matter


@pytest.mark.parametrize("batch_norm", ["support", "batch"])
def test_only_a_transductive_setting_looks_at_the_other_queries(batch_norm: str) -> None:
    learner = built({"architecture": CONV, **START, "update": {"steps": 1}}, IMAGES, inner={"batch_norm": batch_norm})
    phi, state = begun(learner)
    episode = episode_of(IMAGES, 0)
    adapted = learner.adapt(phi, state, episode.support, seeded(0))
    same = torch.allclose(adapted.predict(episode.query_x)[:2], adapted.predict(episode.query_x[:2]), atol=1e-9)
    assert same == (learner.setting == "inductive")


def test_prototypes_are_class_means_and_classify_by_distance() -> None:
    features, labels = normal(6, 2, seed=0), torch.tensor([0, 1, 2, 0, 1, 2])
    means = class_means(features, labels, 3)
    torch.testing.assert_close(means[1], features[[1, 4]].mean(0))
    learner = built({"architecture": SMOOTH, "prediction": {"kind": "prototypes"}, **START}, FEW_SHOT)
    assert isinstance(learner, AmortizedLearner) and isinstance(learner.solver, Prototypes)
    logits = learner.solver.logits({}, features, means)
    torch.testing.assert_close(logits, -torch.cdist(features, means).square(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_learned_temperature_divides_the_logits(metric: str) -> None:
    task, head = FEW_SHOT, {"kind": "prototypes", "metric": metric}
    learners = [
        built({"architecture": SMOOTH, "prediction": {**head, "temperature": t}, **START}, task)
        for t in (2.0, {"learn": {"start": 2.0}})
    ]
    losses = []
    for learner in learners:
        phi, state = begun(learner)
        losses.append(learner.meta_step(phi, state, [episode_of(task, 0)], seeded(0)).loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_nearest_neighbour_finds_the_example_itself() -> None:
    learner = built({"prediction": {"kind": "nearest_neighbour"}}, FEW_SHOT)
    episode = episode_of(FEW_SHOT, 0)
    adapted = learner.adapt({}, LearnerState(), episode.support, seeded(0))
    assert torch.equal(adapted.predict(3 * episode.support_x).argmax(-1), episode.support_y)


def test_reptile_with_one_step_is_joint_sgd() -> None:
    """theta_0 - theta_1 = rate * grad of the loss on all of the task's data: plain training on the mixture."""
    settings = {**START, "data": {"kind": "whole_task"}, "update": {"kind": "sgd", "rate": 0.1, "steps": 1}}
    learner = gradient_learner(built({"architecture": SMOOTH, **settings}, SINGLE, estimator="displacement"))
    phi, state = begun(learner)
    episodes = [episode_of(SINGLE, seed) for seed in range(2)]
    found = learner.meta_step(phi, state, episodes, seeded(0)).gradient
    leaves = {name: value.clone().requires_grad_() for name, value in phi.items()}
    theta = {name.removeprefix("initialization/"): value for name, value in leaves.items()}
    x = torch.cat([torch.cat([e.support_x, e.query_x]) for e in episodes])
    y = torch.cat([torch.cat([e.support_y, e.query_y]) for e in episodes])
    loss = F.cross_entropy(learner.loop.forward(leaves, theta, x, 0).outputs, y)
    for name, slope in zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True):
        torch.testing.assert_close(found[name], 0.1 * slope, rtol=1e-10, atol=1e-13)


def test_a_meta_tests_query_labels_are_never_trained_on() -> None:
    settings = {**START, "data": {"kind": "whole_task"}, "update": {"steps": 2, "rate": 0.5}}
    learner = built({"architecture": SMOOTH, **settings}, SINGLE, estimator="displacement")
    phi, state = begun(learner)
    episode = episode_of(SINGLE, 0)
    swapped = replace(episode, query_y=(episode.query_y + 1) % 3)
    one = learner.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x)
    losses = [learner.evaluate(phi, state, e, seeded(0)).losses[-1] for e in (episode, swapped)]
    log_p = one.log()
    assert losses[0] == pytest.approx(float(F.nll_loss(log_p, episode.query_y)))
    assert losses[1] == pytest.approx(float(F.nll_loss(log_p, swapped.query_y)))


def test_meta_weight_nets_gradient_is_the_inner_product_of_gradients() -> None:
    """dF/dw_i = -rate / n * <grad l_i, grad L_query>: Shu et al., equation 9; Ren et al.'s rule for example weights."""
    net = {"kind": "meta_weight_net", "hidden": 4, "normalize": False}
    settings = {"weighting": net, "update": {"rate": 0.1, "steps": 1}}
    learner = gradient_learner(built({"architecture": SMOOTH, **settings}, SINGLE, inner={"mode": "online"}))
    phi, state = begun(learner)
    episode = episode_of(SINGLE, 0)
    found = learner.meta_step(phi, state, [episode], seeded(0)).gradient

    theta = {n: v.clone().requires_grad_() for n, v in state.theta.items()}
    losses = learner.loop.support_losses(phi, theta, episode, 0)
    slopes = [torch.autograd.grad(loss, list(theta.values()), retain_graph=True) for loss in losses]
    leaves = {name: value.clone().requires_grad_() for name, value in phi.items()}
    own = {name.removeprefix("weighting/"): value for name, value in leaves.items()}
    weights = learner.slots.weighting.weights(own, Examples(losses.detach(), episode.support_y))
    moved = {
        name: value.detach() - 0.1 / len(slopes) * sum(w.detach() * s[i] for w, s in zip(weights, slopes, strict=True))
        for i, (name, value) in enumerate(theta.items())
    }
    ahead = {name: value.requires_grad_() for name, value in moved.items()}
    judged = learner.loop.outer(phi, ahead, episode, 1).loss
    query = torch.autograd.grad(judged, list(ahead.values()))
    products = [sum((a * b).sum() for a, b in zip(s, query, strict=True)) for s in slopes]
    by_weight = torch.stack([-0.1 / len(slopes) * torch.as_tensor(p) for p in products])
    expected = torch.autograd.grad(weights, list(leaves.values()), grad_outputs=by_weight)
    for name, value in zip(leaves, expected, strict=True):
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-14)


def test_an_online_learner_goes_on_from_where_it_was() -> None:
    settings = {"architecture": SMOOTH, "update": {"kind": "sgd", "rate": 0.1, "momentum": 0.9, "steps": 1}}
    learner = built(settings, SINGLE, inner={"mode": "online"})
    phi, state = begun(learner)
    parameters = {n: v.clone().requires_grad_() for n, v in state.theta.items()}
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1, momentum=0.9)
    for seed in range(4):
        episode = episode_of(SINGLE, seed)
        hidden = torch.tanh(F.linear(episode.support_x, parameters["layer0.weight"], parameters["layer0.bias"]))
        outputs = F.linear(hidden, parameters["head.weight"], parameters["head.bias"])
        optimizer.zero_grad()
        F.cross_entropy(outputs, episode.support_y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        state = learner.advance(phi, state, [episode], seeded(seed))
    for name, value in parameters.items():
        torch.testing.assert_close(state.theta[name], value.detach(), rtol=1e-10, atol=1e-12)


def test_one_distilled_example_a_class_trains_the_network() -> None:
    settings = {"data": {"kind": "distilled", "per_class": 2}, "update": {"steps": 1}}
    learner = gradient_learner(built({"architecture": SMOOTH, **settings}, SINGLE))
    phi, _ = begun(learner)
    assert phi["data/examples"].shape == (6, 6)
    x, y = learner.slots.data.batch({"examples": phi["data/examples"]}, episode_of(SINGLE, 0))
    assert torch.equal(x, phi["data/examples"])
    assert y.argmax(-1).tolist() == [0, 0, 1, 1, 2, 2]


def test_a_resampled_start_is_drawn_anew_at_every_outer_step() -> None:
    settings = {
        "architecture": SMOOTH,
        "initialization": {"kind": "random", "resample": True},
        "data": {"kind": "distilled"},
        "update": {"steps": 1},
    }
    learner = built(settings, SINGLE)
    phi, state = begun(learner)
    episode = episode_of(SINGLE, 0)
    losses = [learner.meta_step(phi, state, [episode], seeded(seed)).loss for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("anew", [False, True])
def test_an_evaluated_task_draws_its_own_start_if_told_to(anew: bool) -> None:
    settings = {
        "architecture": SMOOTH,
        "initialization": {"kind": "random", "resample_evaluated": anew},
        "update": {"steps": 1},
    }
    learner = built(settings, SINGLE)
    phi, state = begun(learner)
    episode = episode_of(SINGLE, 0)
    losses = [learner.evaluate(phi, state, episode, seeded(seed)).losses[0] for seed in (1, 1, 2)]
    assert losses[0] == losses[1]
    assert (losses[1] != losses[2]) == anew
    found = [learner.adapt(phi, state, episode.support, seeded(seed)).predict(episode.query_x) for seed in (1, 2)]
    assert torch.equal(*found) != anew


def test_multi_step_weights_fade_to_the_last_step() -> None:
    assert multi_step_weights(5, 0, 0) is None
    assert multi_step_weights(1, 0, 100) is None
    assert multi_step_weights(5, 0, 100) == pytest.approx((0.2,) * 5)
    half = multi_step_weights(5, 50, 100)
    assert half == pytest.approx((0.1, 0.1, 0.1, 0.1, 0.6))
    late = multi_step_weights(5, 10_000, 100)
    assert late is not None
    assert late[0] == pytest.approx(0.03 / 5)
    assert sum(late) == pytest.approx(1.0)


def test_per_step_batch_norm_has_its_own_gamma_for_every_step() -> None:
    settings = {
        "architecture": CONV,
        **START,
        "update": {"rate": {"learn": {"per": "layer_step", "start": 0.1}}, "steps": 3, "evaluation_steps": 5},
    }
    learner = built(settings, IMAGES, inner={"batch_norm": "per_step"})
    phi, state = begun(learner)
    assert phi["normalization/norm0.weight"].shape == (3, 4)
    assert not any("norm" in name for name in phi if not name.startswith("normalization/"))
    outcome = learner.evaluate(phi, state, episode_of(IMAGES, 0), seeded(0))
    assert len(outcome.losses) == 6


NETWORKS = ["mlp", "conv4", "convnet", "resnet", "resnet12", "cells", "genotype", "module", "gru", "lstm", "conv1d"]
NETWORKS.append("transformer")


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_says_the_shape_of_its_features(kind: str) -> None:
    row = COMPONENT_ROWS["architecture", kind]
    task = row.task_for("architecture")
    network = make_component(SLOTS["architecture"], {"kind": kind, **row.settings}, task, trust_code=True)
    assert isinstance(network, Network)
    theta = network.parameters(torch.Generator().manual_seed(0))
    phi = network.init(theta, torch.Generator().manual_seed(0))
    features = network.features(theta, torch.zeros(2, *task.inputs), Normalization(), network.sampled(phi, {}))
    assert features.shape == (2, math.prod(network.feature_shape()))
