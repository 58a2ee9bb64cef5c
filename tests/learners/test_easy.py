"""EASY against plain torch: its pre-training, its crops and its head, and what holds for it whatever the episode."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners import build_learner
from metaloom.learners.base import Learner
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.solvers.amortized import AmortizedLearner
from metaloom.learners.solvers.metric.crops import boxes, crops
from metaloom.learners.solvers.metric.easy import turned
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors, as_leaves
from metaloom.testing.problems import SMOOTH, begun, episode_of, seeded

SHOTS = TaskShape("classification", (1, 8, 8), 3, classes=9)
CONV = {"kind": "conv4", "channels": 4, "blocks": 2}
FROZEN = {"batch_norm": "frozen"}


def learner_of(
    kind: str, *, network: Any = CONV, task: TaskShape = SHOTS, inner: Any = FROZEN, **settings: Any
) -> Learner:
    learner = {"architecture": network, "initialization": {"kind": "learned"}, "prediction": {"kind": kind, **settings}}
    return build_learner(learner=learner, inner=inner, outer={}, task=task)


def episode(seed: int = 0, *, support: int = 6, queries: int = 10) -> Episode:
    drawn = episode_of(SHOTS, seed, support=support, queries=queries)
    return replace(drawn, class_ids=torch.tensor([7, 2, 4]))


def plain_conv(theta: Tensors, x: Tensor, mix: tuple[int, float, Tensor] | None = None) -> Tensor:
    """Conv-4 of two blocks as torch has it, with one hidden layer mixed in pairs."""

    def mixed(place: int, hidden: Tensor) -> Tensor:
        return hidden if mix is None or mix[0] != place else mix[1] * hidden + (1 - mix[1]) * hidden[mix[2]]

    x = mixed(0, x)
    for block in range(2):
        x = F.conv2d(x, theta[f"conv{block}.weight"], padding=1)
        x = F.batch_norm(x, None, None, theta[f"norm{block}.weight"], theta[f"norm{block}.bias"], training=True)
        x = F.relu(mixed(block + 1, F.max_pool2d(x, 2)))
    return x.flatten(1)


def plain_loss(phi: Tensors, given: Episode, mix: tuple[int, float, Tensor] | None, weight: float) -> Tensor:
    """The pre-training loss, written out."""
    theta = {name.removeprefix("initialization/"): value for name, value in phi.items()}
    x = torch.cat([given.support_x, given.query_x])
    assert given.class_ids is not None
    y = torch.stack([given.class_ids[label] for label in (*given.support_y, *given.query_y)])
    classes = (phi["prediction/classes.weight"], phi["prediction/classes.bias"])
    total = torch.zeros((), dtype=x.dtype)
    if mix is not None:
        scores = F.linear(plain_conv(theta, x, mix), *classes)
        total = mix[1] * F.cross_entropy(scores, y) + (1 - mix[1]) * F.cross_entropy(scores, y[mix[2]])
    turns = [index % 4 for index in range(len(x))]
    features = plain_conv(
        theta, torch.stack([torch.rot90(one, turn, (1, 2)) for one, turn in zip(x, turns, strict=True)])
    )
    rotation = F.linear(features, phi["prediction/rotations.weight"], phi["prediction/rotations.bias"])
    by_turn = F.cross_entropy(rotation, torch.tensor(turns))
    return total + (1 - weight) * F.cross_entropy(F.linear(features, *classes), y) + weight * by_turn


@pytest.mark.parametrize("place", [0, 1])
def test_the_pre_training_is_that_of_plain_torch(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, given = learner_of("easy", rotation_weight=0.3), episode()
    assert isinstance(learner, AmortizedLearner)
    phi, state = begun(learner)
    order = torch.randperm(16, generator=seeded(4))
    noise = {"share": torch.tensor(0.7, dtype=torch.float64), "place": torch.tensor((place + 0.5) / 2), "order": order}
    monkeypatch.setattr(learner.solver, "draw_loss", lambda *_: noise)
    step = learner.meta_step(phi, state, [given], seeded(0))
    leaves = as_leaves(phi)
    loss = plain_loss(leaves, given, (place, 0.7, order), 0.3)
    assert step.loss == pytest.approx(loss.item(), rel=1e-9)
    slopes = torch.autograd.grad(loss, list(leaves.values()))
    for name, slope in zip(leaves, slopes, strict=True):
        torch.testing.assert_close(step.gradient[name], slope, rtol=1e-6, atol=1e-9)


def test_each_part_of_the_pre_training_can_be_left_out() -> None:
    given = episode()
    whole = learner_of("easy", mixup=0)
    phi, state = begun(whole)
    step = whole.meta_step(phi, state, [given], seeded(0))
    assert step.loss == pytest.approx(float(plain_loss(phi, given, None, 0.5)), rel=1e-9)
    plain = learner_of("easy", mixup=0, rotations=False, centre=False)
    assert not any("rotations" in leaf for leaf in plain.init(seeded(0)))
    phi, state = begun(plain)
    theta = {name.removeprefix("initialization/"): value for name, value in phi.items()}
    x, ids = torch.cat([given.support_x, given.query_x]), given.class_ids
    assert ids is not None
    scores = F.linear(plain_conv(theta, x), phi["prediction/classes.weight"], phi["prediction/classes.bias"])
    expected = F.cross_entropy(scores, ids[torch.cat([given.support_y, given.query_y])])
    step = plain.meta_step(phi, state, [given], seeded(0))
    assert step.loss == pytest.approx(float(expected), rel=1e-9)


def test_a_mixing_is_drawn_as_the_paper_has_it() -> None:
    learner = learner_of("easy", mixup=2)
    assert isinstance(learner, AmortizedLearner)
    given, generator = episode(), seeded(0)
    drawn = [learner.solver.draw_loss(given, generator) for _ in range(4000)]
    shares = torch.stack([one["share"] for one in drawn])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(shares.var()) == pytest.approx(1 / 20, abs=0.003)  # of Beta(2, 2)
    places = torch.stack([one["place"] for one in drawn])
    assert float((places < 0.5).double().mean()) == pytest.approx(0.5, abs=0.03)
    assert sorted(drawn[0]["order"].tolist()) == list(range(16))
    one, other = (learner.meta_step(*begun(learner), [given], seeded(seed)).loss for seed in (1, 2))
    assert one != other
    assert one == learner.meta_step(*begun(learner), [given], seeded(1)).loss


@pytest.mark.parametrize(
    "network",
    [
        CONV,
        {"kind": "resnet12", "width": 4},
        {"kind": "resnet", "blocks": 1, "width": 4},
        {"kind": "convnet", "channels": 4, "blocks": 2},
        SMOOTH,
    ],
    ids=lambda one: str(one["kind"]),
)
def test_every_hidden_layer_of_a_network_may_be_mixed(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, given = learner_of("easy", network=network, crops=2), episode()
    assert isinstance(learner, AmortizedLearner)
    assert learner.network is not None
    phi, state = begun(learner)
    order = torch.arange(15, -1, -1)

    def loss(place: int, share: float) -> float:
        at = (place + 0.5) / max(learner.network.places, 1)  # type: ignore[union-attr]
        noise = {"share": torch.tensor(share, dtype=torch.float64), "place": torch.tensor(at), "order": order}
        monkeypatch.setattr(learner.solver, "draw_loss", lambda *_: noise)
        return learner.meta_step(phi, state, [given], seeded(0)).loss

    found = [loss(place, 0.6) for place in range(max(learner.network.places, 1))]
    assert len(set(found)) == len(found)  # each is another place
    assert len({loss(place, 1.0) for place in range(len(found))}) == 1  # a share of 1 mixes nothing


def bilinear(image: Tensor, across: float, down: float) -> float:
    """Interpolate a pixel of an image [height, width], the edge going on outside; pixel centres are at halves."""
    x, y = across * image.shape[1] - 0.5, down * image.shape[0] - 0.5
    left, top = int(x // 1), int(y // 1)
    total = 0.0
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        pixel = image[min(max(row, 0), image.shape[0] - 1), min(max(column, 0), image.shape[1] - 1)]
        total += float(pixel) * (1 - abs(x - column)) * (1 - abs(y - row))
    return total


def test_a_crop_is_that_part_of_the_image() -> None:
    images = torch.rand(2, 3, 6, 8, generator=seeded(0), dtype=torch.float64)
    found = crops(images, 5, 0.2)
    assert found.shape == (5, 2, 3, 6, 8)
    for crop, (left, top, width, height) in zip(found, boxes(5, 0.2), strict=True):
        for row, column in ((0, 0), (2, 5), (5, 7)):
            across, down = left + width * (column + 0.5) / 8, top + height * (row + 0.5) / 6
            expected = bilinear(images[1, 2], across, down)
            assert float(crop[1, 2, row, column]) == pytest.approx(expected, abs=1e-9)


def test_crops_lie_within_the_image_and_spread_over_it() -> None:
    found = torch.tensor(boxes(100, 0.08), dtype=torch.float64)
    left, top, width, height = found.T
    assert float(torch.stack([left, top]).min()) >= 0
    assert float(torch.stack([left + width, top + height]).max()) <= 1 + 1e-12
    assert float((width * height).min()) >= 0.079
    assert float((width * height).mean()) == pytest.approx(0.54, abs=0.05)
    assert float((left + width / 2).mean()) == pytest.approx(0.5, abs=0.05)
    assert float((width / height).log().mean()) == pytest.approx(0.0, abs=0.05)


def test_a_turn_is_a_quarter_to_the_left() -> None:
    images = torch.arange(8.0).view(2, 1, 2, 2)
    found = turned(images, torch.tensor([0, 1]))
    assert torch.equal(found[0], images[0])
    assert found[1, 0].tolist() == [[5.0, 7.0], [4.0, 6.0]]


def with_centre(learner: Learner, seed: int = 0) -> tuple[Tensors, LearnerState]:
    """Return phi and a state after two outer steps, whose running mean is that of features."""
    phi, state = begun(learner)
    for index in range(2):
        step = learner.meta_step(phi, state, [episode(index + 5)], seeded(seed))
        state = step.after(state)
    return phi, state


def plain_head(features: Tensor, queries: Tensor, given: Episode, *, soft: bool, sharpness: float = 5.0) -> Tensor:
    """Class means, and soft k-means in which each class takes an equal part, written out with loops."""
    means = torch.stack([features[given.support_y == one].mean(0) for one in range(3)])
    start = means.clone()
    counts = [int((given.support_y == one).sum()) for one in range(3)]
    part = len(queries) / 3
    for _ in range(30 if soft else 0):
        shares = torch.stack([torch.softmax(-sharpness * (q - means).square().sum(-1), 0) for q in queries])
        weighed = [sum(shares[i, k] * queries[i] for i in range(len(queries))) / shares[:, k].sum() for k in range(3)]
        means = torch.stack([(counts[k] * start[k] + part * weighed[k]) / (counts[k] + part) for k in range(3)])
    return torch.softmax(-sharpness * torch.stack([(q - means).square().sum(-1) for q in queries]), -1)


@pytest.mark.parametrize("soft", [False, True], ids=["ncm", "soft_k_means"])
@pytest.mark.parametrize("kind", ["easy", "augmented_shots"])
def test_the_head_is_that_of_plain_torch(kind: str, soft: bool) -> None:
    settings = {"crops": 4, "crop_area": 0.3, "classifier": "soft_k_means" if soft else "ncm"}
    if kind == "easy":
        learner = learner_of(kind, **settings)
        phi, state = with_centre(learner)
    else:  # over the body that the other has learned
        phi, state = with_centre(learner_of("easy"))
        learner = learner_of(kind, **settings)
        phi = {leaf: value for leaf, value in phi.items() if leaf.startswith("initialization/")}
    given = episode(1)
    theta = {name.removeprefix("initialization/"): value for name, value in phi.items()}

    def features(x: Tensor) -> Tensor:
        for block in range(2):
            x = F.conv2d(x, theta[f"conv{block}.weight"], padding=1)
            statistics = state.running[f"norm{block}.mean"], state.running[f"norm{block}.var"]
            x = F.batch_norm(x, *statistics, theta[f"norm{block}.weight"], theta[f"norm{block}.bias"])
            x = F.relu(F.max_pool2d(x, 2))
        return x.flatten(1)

    centre = state.running["own/centre.mean"]
    shots = torch.stack([features(one) for one in crops(given.support_x, 4, 0.3)]).mean(0) - centre
    asked = features(given.query_x) - centre
    shots, asked = (one / one.norm(dim=-1, keepdim=True) for one in (shots, asked))
    expected = plain_head(shots, asked, given, soft=soft)
    adapted = learner.adapt(phi, state, given.support, seeded(0))
    torch.testing.assert_close(adapted.predict(given.query_x), expected, rtol=1e-6, atol=1e-9)
    assert learner.setting == ("transductive" if soft else "inductive")
    again = learner.adapt(phi, state, given.support, seeded(8)).predict(given.query_x)
    assert torch.equal(again, adapted.predict(given.query_x))  # nothing is random


def test_the_centre_is_the_running_mean_of_upright_images() -> None:
    learner = learner_of("easy", mixup=0)
    phi, state = begun(learner)
    given = episode()
    after = learner.meta_step(phi, state, [given], seeded(0)).after(state)
    theta = {name.removeprefix("initialization/"): value for name, value in phi.items()}
    x = torch.cat([given.support_x, given.query_x])
    features = plain_conv(theta, torch.stack([torch.rot90(one, i % 4, (1, 2)) for i, one in enumerate(x)]))
    torch.testing.assert_close(after.running["own/centre.mean"], features[::4].mean(0))
    assert (
        "own/centre.mean"
        not in learner_of("easy", centre=False).meta_step(*begun(learner), [given], seeded(0)).after(state).running
    )


CASES: list[dict[str, Any]] = [
    {},
    {"crops": 0},
    {"crop_queries": True},
    {"centre": False},
    {"sphere": False, "sharpness": 0.1},
    {"classifier": "soft_k_means"},
    {"classifier": "soft_k_means", "balanced": False, "iterations": 3},
]


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_order_and_names_of_classes_and_padding_do_not_matter(settings: dict[str, Any]) -> None:
    learner = learner_of("easy", **{"crops": 2, **settings})
    phi, state = with_centre(learner)
    given = episode(2)

    def answers(support: Support) -> Tensor:
        return learner.adapt(phi, state, support, seeded(0)).predict(given.query_x)

    expected, support = answers(given.support), given.support
    order = torch.randperm(6, generator=seeded(1))
    torch.testing.assert_close(answers(Support(support.x[order], support.y[order])), expected)
    numbers = torch.tensor([2, 0, 1])
    torch.testing.assert_close(answers(replace(support, y=numbers[support.y]))[:, numbers], expected)
    filled = Support(
        torch.cat([support.x, 9 * support.x[:1]]), torch.cat([support.y, support.y[1:2]]), mask=torch.arange(7) < 6
    )
    torch.testing.assert_close(answers(filled), expected)
    adapted = learner.adapt(phi, state, support, seeded(0))
    alone = torch.cat([adapted.predict(one[None]) for one in given.query_x])
    assert torch.allclose(alone, expected) == (learner.setting == "inductive")


@pytest.mark.parametrize("settings", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_one_query_an_empty_class_and_duplicates_are_finite(settings: dict[str, Any], dtype: torch.dtype) -> None:
    learner = learner_of("augmented_shots", **{"crops": 2, **settings})
    phi, state = begun(learner_of("easy"))
    trained = with_centre(learner_of("easy"))[1]
    phi = {leaf: value.to(dtype) for leaf, value in phi.items() if leaf.startswith("initialization/")}
    state = replace(state, running={name: value.to(dtype) for name, value in trained.running.items()})
    one = torch.rand(1, 1, 8, 8, generator=seeded(0), dtype=dtype)
    for support in (
        Support(one.repeat(3, 1, 1, 1), torch.arange(3)),
        Support(torch.cat([one, 1 - one]), torch.tensor([0, 2])),
    ):
        for queries in (one, one.repeat(4, 1, 1, 1)):
            found = learner.adapt(phi, state, support, seeded(0)).predict(queries)
            assert bool(torch.isfinite(found).all())
            torch.testing.assert_close(found.sum(-1), torch.ones(len(queries), dtype=dtype))
            assert len(support.y) == 3 or float(found[:, 1].max()) < 1e-6  # nothing is known of that class


def test_any_number_of_ways_is_served() -> None:
    phi, state = with_centre(learner_of("easy"))
    wider = learner_of("easy", task=replace(SHOTS, outputs=5), crops=2)
    assert {leaf: value.shape for leaf, value in wider.init(seeded(0)).items()} == {
        leaf: value.shape for leaf, value in phi.items()
    }
    x = torch.rand(10, 1, 8, 8, generator=seeded(0), dtype=torch.float64)
    found = wider.adapt(phi, state, Support(x, torch.arange(10) % 5), seeded(0)).predict(x)
    assert found.shape == (10, 5)


@pytest.mark.parametrize(
    ("kind", "shape", "settings", "message"),
    [
        ("augmented_shots", (6,), {}, r"prediction\.crops: only images .* shape \(6,\); use 0"),
        ("easy", (1, 8, 6), {"crops": 0}, r"prediction\.rotations: only square images .*; use false"),
        ("easy", (1, 8, 8), {"sharpness": {"learn": {"start": 2.0}}}, r"sharpness: pre-training does not read it"),
    ],
)
def test_what_cannot_be_is_refused(kind: str, shape: tuple[int, ...], settings: Any, message: str) -> None:
    with pytest.raises(LearnerError, match=message):
        learner_of(kind, network=SMOOTH, task=replace(SHOTS, inputs=shape), **settings)
    with pytest.raises(LearnerError, match="known classes"):
        learner_of("easy", task=replace(SHOTS, classes=0)).init(seeded(0))
