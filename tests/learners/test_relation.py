"""Relation networks against plain torch, and what holds for them whatever the episode."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.base import Learner
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.tensors import Tensors, as_leaves
from metaloom.testing.problems import SMOOTH, begun, built, central_difference, episode_of, seeded

VECTORS = TaskShape("classification", (6,), 3, classes=9)
IMAGES = TaskShape("classification", (1, 16, 16), 3, classes=9)
CONV = {"kind": "conv4", "channels": 4, "halvings": 2}


def learner_of(task: TaskShape, network: dict[str, Any], batch_norm: str = "batch", **settings: Any) -> Learner:
    prediction = {"kind": "relation", "channels": 5, "hidden": 4, "activation": "tanh", **settings}
    learner = {"architecture": network, "initialization": {"kind": "learned"}, "prediction": prediction}
    return built(learner, task, estimator="auto", inner={"batch_norm": batch_norm})


def plain_norm(x: Tensor, phi: Tensors, name: str) -> Tensor:
    return F.batch_norm(x, None, None, phi[f"{name}.weight"], phi[f"{name}.bias"], training=True)


def encoded(phi: Tensors, x: Tensor) -> Tensor:
    """Four blocks of which the first two pool."""
    for block in range(4):
        x = F.conv2d(x, phi[f"initialization/conv{block}.weight"], padding=1)
        x = F.relu(plain_norm(x, phi, f"initialization/norm{block}"))
        x = F.max_pool2d(x, 2) if block < 2 else x
    return x


def plain_scores(phi: Tensors, episode: Episode) -> Tensor:
    """Stack every query's maps on every class's, as the paper's figure 2 has it."""
    both = torch.cat([episode.support_x, episode.query_x])
    if len(both.shape) == 4:
        features = encoded(phi, both)
    else:
        layer = (phi[f"initialization/layer0.{name}"] for name in ("weight", "bias"))
        features = torch.tanh(F.linear(both, *layer))
    support, queries = features[: len(episode.support_x)], features[len(episode.support_x) :]
    classes = torch.stack([support[episode.support_y == label].sum(0) for label in range(3)])
    pairs = torch.stack([torch.cat([one, query]) for query in queries for one in classes])
    if pairs.ndim == 4:
        for block in range(2):
            pairs = F.conv2d(pairs, phi[f"prediction/conv{block}.weight"], padding=1)
            pairs = F.max_pool2d(plain_norm(pairs, phi, f"prediction/norm{block}").tanh(), 2)
        pairs = pairs.flatten(1)
    names = ("hidden",) if "prediction/first.weight" not in phi else ("first", "hidden")
    for name in names:
        pairs = torch.tanh(F.linear(pairs, phi[f"prediction/{name}.weight"], phi[f"prediction/{name}.bias"]))
    return F.linear(pairs, phi["prediction/score.weight"], phi["prediction/score.bias"]).view(-1, 3)


CASES = [(VECTORS, dict(SMOOTH)), (IMAGES, CONV)]


@pytest.mark.parametrize("objective", ["mse", "cross_entropy"])
@pytest.mark.parametrize(("task", "network"), CASES, ids=["vectors", "maps"])
def test_it_is_the_papers_written_out(task: TaskShape, network: dict[str, Any], objective: str) -> None:
    learner, episode = learner_of(task, network, objective=objective), episode_of(task, 0, support=6, queries=5)
    phi, state = begun(learner)
    leaves = as_leaves(phi)
    scores = plain_scores(leaves, episode)
    loss = F.cross_entropy(scores, episode.query_y)
    if objective == "mse":
        loss = F.mse_loss(torch.sigmoid(scores), F.one_hot(episode.query_y).double())
    step = learner.meta_step(phi, state, [episode], seeded(0))
    assert step.loss == pytest.approx(float(loss.detach()), rel=1e-10)
    slopes = torch.autograd.grad(loss, list(leaves.values()))
    for name, slope in zip(leaves, slopes, strict=True):
        torch.testing.assert_close(step.gradient[name], slope, rtol=1e-6, atol=1e-9)
    predicted = learner.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x)
    torch.testing.assert_close(predicted, torch.softmax(scores, 1).detach(), rtol=1e-9, atol=1e-9)
    shown = learner.inspect(phi, state, episode)
    torch.testing.assert_close(shown["relation"], torch.sigmoid(scores).detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("objective", ["mse", "cross_entropy"])
def test_its_gradient_is_that_of_central_differences(objective: str) -> None:
    """Over maps; the rectified encoder's kinks are not between the points compared."""
    learner, episode = learner_of(IMAGES, CONV, objective=objective), episode_of(IMAGES, 1, support=6, queries=4)
    phi, state = begun(learner)
    gradient = learner.meta_step(phi, state, [episode], seeded(0)).gradient
    direction = {name: torch.randn(one.shape, generator=seeded(5), dtype=one.dtype) for name, one in phi.items()}
    direction = {name: one for name, one in direction.items() if name.startswith("prediction/")}
    exact = float(sum((direction[name] * gradient[name]).sum() for name in direction))
    found = central_difference(lambda at: learner.objective(at, state, [episode], seeded(0)), phi, direction, 1e-4)
    assert exact == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("batch_norm", ["frozen", "support"])
@pytest.mark.parametrize(("task", "network"), CASES, ids=["vectors", "maps"])
def test_order_names_filling_and_other_queries_play_no_part(
    task: TaskShape, network: dict[str, Any], batch_norm: str
) -> None:
    learner, episode = learner_of(task, network, batch_norm), episode_of(task, 2, support=6, queries=5)
    assert learner.setting == "inductive"
    phi, state = begun(learner)
    state = learner.meta_step(phi, state, [episode], seeded(0)).after(state)

    def predicted(support: Support, query_x: Tensor = episode.query_x) -> Tensor:
        return learner.adapt(phi, state, support, seeded(0)).predict(query_x)

    given, order, numbers = episode.support, torch.tensor([5, 1, 3, 0, 2, 4]), torch.tensor([2, 0, 1])
    expected = predicted(given)
    close = {"rtol": 1e-9, "atol": 1e-11}
    torch.testing.assert_close(predicted(Support(given.x[order], given.y[order])), expected, **close)
    torch.testing.assert_close(predicted(replace(given, y=numbers[given.y]))[:, numbers], expected, **close)
    mask = torch.tensor([True] * 6 + [False])
    filled = Support(torch.cat([given.x, 50 * given.x[:1]]), torch.cat([given.y, given.y[1:2]]), mask=mask)
    torch.testing.assert_close(predicted(filled), expected, **close)
    alone = torch.cat([predicted(given, query[None]) for query in episode.query_x])
    torch.testing.assert_close(alone, expected, **close)


def test_the_comparison_takes_any_number_of_classes() -> None:
    few, many = (learner_of(replace(VECTORS, outputs=ways), dict(SMOOTH)) for ways in (3, 7))
    phi, state = begun(few)
    assert {name: one.shape for name, one in begun(many)[0].items()} == {name: one.shape for name, one in phi.items()}
    episode = episode_of(many.task, 0, support=7, queries=7)
    assert many.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x).shape == (7, 7)


def test_a_class_without_an_example_is_not_predicted() -> None:
    """A learner of many classes may be given an episode of few."""
    few, many = (learner_of(replace(VECTORS, outputs=ways), dict(SMOOTH)) for ways in (3, 7))
    phi, state = begun(few)
    episode = episode_of(VECTORS, 0, support=6, queries=6)
    found = [one.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x) for one in (few, many)]
    assert not found[1][:, 3:].any()
    torch.testing.assert_close(found[1][:, :3], found[0])


def test_sums_and_means_of_single_examples_are_alike() -> None:
    one, other = (learner_of(VECTORS, dict(SMOOTH), combine=combine) for combine in ("sum", "mean"))
    phi, state = begun(one)
    for shots, same in ((1, True), (2, False)):
        episode = episode_of(VECTORS, 0, support=3 * shots, queries=4)
        found = [each.evaluate(phi, state, episode, seeded(0)).losses[-1] for each in (one, other)]
        assert (found[0] == pytest.approx(found[1], rel=1e-9)) == same


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", ["one query", "an empty class", "duplicates"])
@pytest.mark.parametrize(("task", "network"), CASES, ids=["vectors", "maps"])
def test_what_is_degenerate_stays_finite(
    task: TaskShape, network: dict[str, Any], case: str, dtype: torch.dtype
) -> None:
    learner, episode = learner_of(task, network), episode_of(task, 0, support=6, queries=6)
    if case == "one query":
        episode = replace(episode, query_x=episode.query_x[:1], query_y=episode.query_y[:1])
    elif case == "an empty class":
        episode = replace(episode, support=replace(episode.support, y=episode.support_y.clamp_max(1)))
    else:
        same = episode.support_x[:1].expand_as(episode.support_x).clone()
        episode = replace(episode, support=replace(episode.support, x=same), query_x=same)
    phi, state = begun(learner)
    phi, episode = {name: one.to(dtype) for name, one in phi.items()}, episode.to(torch.device("cpu"), dtype)
    step = learner.meta_step(phi, state, [episode], seeded(0))
    assert all(torch.isfinite(one).all() for one in step.gradient.values())
    assert torch.isfinite(torch.tensor(learner.evaluate(phi, state, episode, seeded(0)).losses)).all()


@pytest.mark.parametrize("pool", ["max", "stride"])
def test_the_encoder_without_its_last_halvings_keeps_its_maps(pool: str) -> None:
    sides = {}
    for halvings in (None, 0, 1, 2, 4):
        network = {"kind": "conv4", "channels": 4, "pool": pool, "halvings": halvings}
        architecture = built({"architecture": network}, IMAGES).slots.architecture
        theta = architecture.parameters(seeded(0))
        shape = architecture.feature_shape()
        assert theta["head.weight"].shape[1] == shape[0] * shape[1] * shape[2]
        sides[halvings] = shape[1]
    assert sides == {None: 1, 0: 16, 1: 8, 2: 4, 4: 1}


def test_an_encoder_that_halves_in_every_block_is_as_before() -> None:
    learners = [built({"architecture": {**CONV, "halvings": given}}, IMAGES) for given in (None, 4)]
    episode = episode_of(IMAGES, 0)
    losses = [one.evaluate(*begun(one), episode, seeded(0)).losses for one in learners]
    assert losses[0] == losses[1]


def test_more_halvings_than_blocks_are_refused() -> None:
    message = r"architecture\.halvings: got 5, and there are 4 blocks to halve the image; give at most 4"
    with pytest.raises(LearnerError, match=message):
        built({"architecture": {**CONV, "halvings": 5}}, IMAGES)
