"""CNAPs and Simple CNAPs: against plain torch, and what must not matter to them."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.base import Learner
from metaloom.learners.build import build_learner
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.solvers.amortized import AmortizedLearner
from metaloom.learners.solvers.model_based.film import penalty
from metaloom.learners.solvers.model_based.set_encoder import task_vector
from metaloom.learners.solvers.model_based.simple_cnaps import distances
from metaloom.learners.tensors import Tensors, as_leaves, part
from metaloom.testing.problems import SMOOTH, begun, central_difference, episode_of, normal, seeded

PICTURES = TaskShape("classification", (2, 8, 8), 3, classes=9)
POINTS = TaskShape("classification", (6,), 3, classes=9)
CONV = {"kind": "conv4", "channels": 4, "blocks": 2}
SMALL: dict[str, dict[str, Any]] = {"cnaps": {"width": 4, "hidden": 5}, "simple_cnaps": {"width": 4, "ridge": 0.7}}
METHODS = tuple(SMALL)
STATISTICS = ("mean", "var")


def made(method: str, task: TaskShape = PICTURES, architecture: Any = CONV, norm: str = "batch", **own: Any) -> Learner:
    settings = {
        "architecture": architecture,
        "initialization": {"kind": "learned"},
        "prediction": {"kind": method, **SMALL[method], **own},
    }
    inner = {"batch_norm": norm}
    return build_learner(learner=settings, inner=inner, outer={}, task=task, trust_code=True)


def lively(phi: Tensors) -> Tensors:
    """Make FiLM's scales large, so that it matters."""
    return {name: value * 400 if name.endswith(".scale") else value for name, value in phi.items()}


def started(learner: Learner) -> tuple[Tensors, Any]:
    phi, state = begun(learner)
    return lively(phi), state


class WrittenOut:
    """Both methods over Conv-4 in plain torch, batch norm over support and queries together."""

    def __init__(self, phi: Tensors) -> None:
        self.body, own = part(phi, "initialization"), part(phi, "prediction")
        self.own, self.encoder = own, part(own, "set_encoder")

    def layer(self, name: str, x: Tensor) -> Tensor:
        return x @ self.own[f"{name}.weight"].T + self.own[f"{name}.bias"]

    def task(self, x: Tensor) -> Tensor:
        for block in range(3):
            x = F.conv2d(x, self.encoder[f"conv{block}.weight"], padding=1)
            mean, var = x.mean((1, 2, 3), keepdim=True), x.var((1, 2, 3), correction=0, keepdim=True)
            gamma, beta = self.encoder[f"norm{block}.weight"], self.encoder[f"norm{block}.bias"]
            x = (x - mean) / (var + 1e-5).sqrt() * gamma[:, None, None] + beta[:, None, None]
            x = F.max_pool2d(x.clamp_min(0), 2)
        return x.mean((0, 2, 3))

    def features(self, x: Tensor, task: Tensor) -> Tensor:
        for block in range(2):
            place = f"norm{block}"
            x = F.conv2d(x, self.body[f"conv{block}.weight"], padding=1)
            x = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
            x = x * self.body[f"{place}.weight"][:, None, None] + self.body[f"{place}.bias"][:, None, None]
            shared = self.layer(f"film/{place}/shared", task).clamp_min(0)
            film = {}
            for name in ("gamma", "beta"):
                hidden = self.layer(f"film/{place}/{name}.hidden", shared).clamp_min(0)
                film[name] = self.own[f"film/{place}/{name}.scale"] * self.layer(f"film/{place}/{name}.output", hidden)
            x = (1 + film["gamma"])[:, None, None] * x + film["beta"][:, None, None]
            x = F.max_pool2d(x, 2).clamp_min(0)
        return x.flatten(1)

    def logits(self, method: str, episode: Episode) -> Tensor:
        support, count = episode.support, len(episode.support_y)
        both = self.features(torch.cat([support.x, episode.query_x]), self.task(support.x))
        features, queries = both[:count], both[count:]
        columns = []
        for label in range(3):
            own = features[support.y == label]
            mean = own.mean(0)
            if method == "cnaps":
                columns.append(queries @ (mean + self.network("weights", mean)) + self.network("bias", mean))
                continue
            share = len(own) / (len(own) + 1)
            within = torch.cov(own.T) if len(own) > 1 else torch.zeros(own.shape[1], own.shape[1]).double()
            q = share * within + (1 - share) * torch.cov(features.T) + 0.7 * torch.eye(own.shape[1]).double()
            away = queries - mean
            columns.append(-0.5 * (away @ torch.linalg.inv(q) * away).sum(1))
        return torch.stack(columns, 1)

    def network(self, name: str, x: Tensor) -> Tensor:
        hidden = F.elu(self.layer(f"classifier/{name}1", F.elu(self.layer(f"classifier/{name}0", x))))
        return (hidden @ self.own[f"classifier/{name}2.weight"].T).squeeze(-1)


def uneven(task: TaskShape, seed: int) -> Episode:
    """Draw an episode of four, two and one examples of its classes."""
    given = episode_of(task, seed, support=7, queries=9)
    return replace(given, support=Support(given.support_x, torch.tensor([0, 1, 0, 2, 0, 1, 0])))


@pytest.mark.parametrize("method", METHODS)
def test_it_is_the_algorithm_written_out_and_so_is_its_gradient(method: str) -> None:
    learner = made(method)
    phi, state = started(learner)
    episode = uneven(PICTURES, 1)
    leaves = as_leaves(phi)
    plain = WrittenOut(leaves)
    logits = plain.logits(method, episode)
    scales = part(plain.own, "film")
    loss = F.cross_entropy(logits, episode.query_y) + 0.001 * sum(
        (value**2).sum() for name, value in scales.items() if name.endswith(".scale")
    )
    predicted = learner.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x)
    torch.testing.assert_close(predicted, logits.softmax(1), rtol=1e-8, atol=1e-10)
    step = learner.meta_step(phi, state, [episode], seeded(0))
    assert step.loss == pytest.approx(float(loss.detach()), rel=1e-10)
    for leaf, slope in zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True):
        torch.testing.assert_close(step.gradient[leaf], slope, rtol=1e-6, atol=1e-9)
        assert float(slope.abs().max()) > 1e-10  # no leaf cancels but for rounding


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norm", ["batch", "support"])
def test_the_gradient_through_modulated_batch_norm(method: str, norm: str) -> None:
    module = {"kind": "module", "of": "tests.support.modules:Normalized"}
    learner = made(method, POINTS, module, norm)
    phi, state = started(learner)
    assert any(name.startswith("prediction/film/bn/") for name in phi)
    batch = [uneven(POINTS, seed) for seed in (1, 2)]
    gradient = learner.meta_step(phi, state, batch, seeded(0)).gradient
    direction = {name: normal(*value.shape, seed=3) for name, value in phi.items()}
    difference = central_difference(lambda at: learner.objective(at, state, batch, seeded(0)), phi, direction, 1e-4)
    assert sum(float((direction[name] * gradient[name]).sum()) for name in phi) == pytest.approx(difference, rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norm", ["support", "batch"])
def test_the_order_of_examples_and_of_classes(method: str, norm: str) -> None:
    learner = made(method, norm=norm)
    phi, state = started(learner)
    episode, order = uneven(PICTURES, 2), torch.randperm(7, generator=seeded(1))
    labels = torch.tensor([2, 0, 1])  # the new label of each class
    given = episode.support
    shuffled = Support(given.x[order], given.y[order])
    renamed = Support(given.x, labels[given.y])
    plain, other, permuted = (
        learner.adapt(phi, state, one, seeded(0)).predict(episode.query_x) for one in (given, shuffled, renamed)
    )
    torch.testing.assert_close(other, plain, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(permuted[:, labels], plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_one_query_at_a_time_equals_all_together(method: str) -> None:
    learner = made(method, norm="support")
    assert learner.setting == "inductive"
    phi, state = started(learner)
    episode = uneven(PICTURES, 3)
    adapted = learner.adapt(phi, state, episode.support, seeded(0))
    alone = torch.cat([adapted.predict(one[None]) for one in episode.query_x])
    torch.testing.assert_close(adapted.predict(episode.query_x), alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_padding_by_the_mask_changes_nothing(method: str) -> None:
    learner = made(method, POINTS, SMOOTH)
    phi, state = started(learner)
    episode = uneven(POINTS, 4)
    filled = Support(
        torch.cat([episode.support_x, 50 * episode.support_x[:3]]),
        torch.cat([episode.support_y, torch.tensor([0, 1, 2])]),
        mask=torch.tensor([True] * 7 + [False] * 3),
    )
    plain, masked = (
        learner.adapt(phi, state, one, seeded(0)).predict(episode.query_x) for one in (episode.support, filled)
    )
    torch.testing.assert_close(masked, plain, rtol=1e-9, atol=1e-12)


def test_the_system_of_examples_gives_the_distances_of_the_system_of_features() -> None:
    features, v, ridge = normal(9, 6, seed=1), normal(3, 4, 6, seed=2), torch.tensor(0.3).double()
    labels = F.one_hot(torch.tensor([0, 1, 0, 2, 0, 1, 0, 1, 0]), 3).double()
    by_features = distances(features, labels, ridge)(v)
    wide, longer = (F.pad(one, (0, 8)) for one in (features, v))  # as many zeros more: now there are more features
    torch.testing.assert_close(distances(wide, labels, ridge)(longer), by_features, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", ["one example a class", "one example", "duplicates", "an empty class", "large"])
def test_it_is_finite_in_float32(method: str, case: str) -> None:
    learner = made(method, POINTS, {"kind": "mlp", "hidden": [16]})
    phi = lively(learner.init(seeded(0)))
    state = learner.begin(phi, seeded(0))
    x, y = torch.randn(6, 6, generator=seeded(1)), torch.tensor([0, 1, 2, 0, 1, 2])
    match case:
        case "one example a class":
            x, y = x[:3], y[:3]
        case "one example":
            x, y = x[:1], y[:1]
        case "duplicates":
            x = x[:1].expand(6, 6)
        case "an empty class":
            y = y % 2
        case "large":
            x = 1e4 * x
    episode = Episode(Support(x, y), x[:1], y[:1])
    step = learner.meta_step(phi, state, [episode], seeded(0))
    assert all(torch.isfinite(slope).all() for slope in step.gradient.values())
    assert torch.isfinite(learner.adapt(phi, state, episode.support, seeded(0)).predict(x[:1])).all()


def test_zero_covariance_gives_prototypes() -> None:
    features, v = normal(3, 4, seed=1), normal(3, 5, 4, seed=2)
    same = features.mean(0).expand(3, 4)  # no spread at all: Q is ridge I
    found = distances(same, torch.eye(3).double(), torch.tensor(2.0).double())(v)
    torch.testing.assert_close(found, v.square().sum(-1).T / 2)


def test_without_film_simple_cnaps_learns_nothing_of_its_own() -> None:
    learner = made("simple_cnaps", film=False, norm="frozen")
    assert not any(name.startswith("prediction/") for name in learner.init(seeded(0)))
    fixed = {"architecture": CONV, "prediction": {"kind": "simple_cnaps", "film": False}}
    assert build_learner(learner=fixed, inner={}, outer={}, task=PICTURES).estimator == "none"
    fixed["prediction"] = {"kind": "simple_cnaps"}
    assert build_learner(learner=fixed, inner={}, outer={}, task=PICTURES).estimator == "direct"


def test_film_starts_near_the_network_itself() -> None:
    with_film, without = made("simple_cnaps"), made("simple_cnaps", film=False)
    phi, state = begun(with_film)
    own = {name: value for name, value in phi.items() if name.startswith("initialization/")}
    episode = uneven(PICTURES, 5)
    near, exact = (
        learner.adapt(at, state, episode.support, seeded(0)).predict(episode.query_x)
        for learner, at in ((with_film, phi), (without, own))
    )
    torch.testing.assert_close(near, exact, rtol=0, atol=1e-2)
    assert not torch.equal(near, exact)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_shown_of_an_episode(method: str) -> None:
    learner = made(method)
    phi, state = started(learner)
    episode = uneven(PICTURES, 6)
    shown = learner.inspect(phi, state, episode)
    assert {name: tuple(value.shape) for name, value in shown.items()} == {
        "labels": (7,),
        "query_labels": (9,),
        "support": (7, 16),
        "queries": (9, 16),
        "prototypes": (3, 16),
        "task_vector": (4,),
        **{f"{name}/norm{block}": (4,) for name in ("film", "film_shift") for block in (0, 1)},
    }
    encoder = part(phi, "prediction/set_encoder")
    torch.testing.assert_close(shown["task_vector"], task_vector(encoder, episode.support_x))
    assert float((shown["film/norm1"] - 1).abs().max()) > 0.01
    plain = WrittenOut(phi)
    both = plain.features(torch.cat([episode.support_x, episode.query_x]), plain.task(episode.support_x))
    torch.testing.assert_close(torch.cat([shown["support"], shown["queries"]]), both)
    stored = dict(sorted(phi.items(), reverse=True))
    factors = [name for name in learner.inspect(stored, state, episode) if name.startswith("film/")]
    assert factors == ["film/norm0", "film/norm1"]
    without = made(method, film=False).inspect(phi, state, episode)
    assert set(without) == {"labels", "query_labels", "support", "queries", "prototypes"}


def test_running_statistics_are_those_of_the_modulated_network() -> None:
    learner = cast(AmortizedLearner, made("simple_cnaps", norm="frozen"))
    phi, state = started(learner)
    episode = uneven(PICTURES, 7)
    after = learner.meta_step(phi, state, [episode], seeded(0)).after(state)
    assert set(after.running) == {f"norm{block}.{part}" for block in (0, 1) for part in ("mean", "var")}
    plain = {name: 0 * value if name.endswith(".scale") else value for name, value in phi.items()}
    other = learner.meta_step(plain, state, [episode], seeded(0)).after(state)
    assert torch.equal(other.running["norm0.mean"], after.running["norm0.mean"])  # before the first FiLM
    assert not torch.allclose(other.running["norm1.mean"], after.running["norm1.mean"])
    adapted = learner.adapt(phi, after, episode.support, seeded(0))
    forward, tensors = adapted.plain()
    torch.testing.assert_close(forward(tensors, episode.query_x), adapted.predict(episode.query_x))


def test_the_penalty_is_the_sum_of_the_squared_scales() -> None:
    phi, _ = started(made("cnaps"))
    film = part(phi, "prediction/film")
    scales = torch.cat([value for name, value in film.items() if name.endswith("scale")])
    assert len(scales) == 2 * 2 * 4
    torch.testing.assert_close(penalty(film), scales @ scales)


def on_a_bundle(method: str, **own: Any) -> AmortizedLearner:
    """Build a learner on a frozen body with running statistics, as a bundle hands them in."""
    drawn = part(begun(made(method))[0], "initialization")
    running = {f"running/norm{block}.{name}": torch.full((4,), 0.5).double() for block in (0, 1) for name in STATISTICS}
    settings = {
        "architecture": CONV,
        "initialization": {"kind": "pretrained", "bundle": "handed in as start"},
        "prediction": {"kind": method, **SMALL[method], **own},
    }
    inner = {"batch_norm": "frozen"}
    learner = build_learner(learner=settings, inner=inner, outer={}, task=PICTURES, start=drawn | running)
    return cast(AmortizedLearner, learner)


@pytest.mark.parametrize("method", METHODS)
def test_a_frozen_body_keeps_the_statistics_of_its_bundle_while_film_is_learned(method: str) -> None:
    learner = on_a_bundle(method)
    phi, state = started(learner)
    assert phi and all(name.startswith("prediction/") for name in phi)
    batch = [uneven(PICTURES, seed) for seed in (8, 9)]
    step = learner.meta_step(phi, state, batch, seeded(0))
    after = step.after(state)
    assert after.running.keys() == state.running.keys() and len(after.running) == 4
    assert all(torch.equal(value, after.running[name]) for name, value in state.running.items())
    assert all(torch.equal(value, after.theta[name]) for name, value in state.theta.items())
    for leaf in ("film/norm0/gamma.scale", "film/norm1/beta.scale", "set_encoder/conv0.weight"):
        assert float(step.gradient[f"prediction/{leaf}"].abs().max()) > 0
    # training and evaluation see the same features: their losses differ by the penalty alone
    evaluated = sum(learner.evaluate(phi, state, one, seeded(0)).losses[-1] for one in batch) / 2
    assert step.loss - evaluated == pytest.approx(0.001 * float(penalty(part(phi, "prediction/film"))), rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_features_are_computed_once_where_nothing_changes_the_body(method: str) -> None:
    for own, same in (({}, False), ({"film": False}, True)):
        learner = on_a_bundle(method, **own)
        phi, state = started(learner)
        body = learner.body(phi, state)
        assert (body is not None) == same
        if body is None:
            continue
        episode, support = uneven(PICTURES, 10), uneven(PICTURES, 10).support
        plain = learner.adapt(phi, state, support, seeded(0)).predict(episode.query_x)
        computed = learner.on_features().adapt(phi, state, Support(body(support.x), support.y), seeded(0))
        torch.testing.assert_close(computed.predict(body(episode.query_x)), plain)
