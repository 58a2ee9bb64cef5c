"""Meta networks: against plain torch, and what must not matter to them."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.base import Learner
from metaloom.learners.build import build_learner
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.solvers.model_based import meta_networks
from metaloom.learners.solvers.model_based.meta_networks import class_directions
from metaloom.learners.tensors import Tensors, as_leaves, part
from metaloom.testing.problems import SMOOTH, begun, episode_of, errors_by_slot, seeded

POINTS = TaskShape("classification", (6,), 3, classes=9)
SMALL: dict[str, Any] = {"width": 5, "hidden": 4}
SUMMARIES = ("lstm", "mean")
LOSSES = ("cross_entropy", "contrastive")


def made(task: TaskShape = POINTS, network: Any = SMOOTH, **own: Any) -> Learner:
    settings = {
        "architecture": network,
        "initialization": {"kind": "learned"},
        "prediction": {"kind": "meta_networks", **SMALL, **own},
    }
    return build_learner(learner=settings, inner={"batch_norm": "support"}, outer={}, task=task)


def uneven(task: TaskShape, seed: int) -> Episode:
    """Draw an episode of three, two and one examples of its classes."""
    given = episode_of(task, seed, support=6, queries=7)
    return Episode(Support(given.support_x, torch.tensor([0, 1, 0, 2, 0, 1])), given.query_x, given.query_y)


def preprocessed(slope: Tensor) -> Tensor:
    """Return (log|g| / p, sign g) or (-1, e^p g), one coordinate at a time: [coordinates, 2]."""
    p, rows = 7.0, []
    for g in slope.flatten():
        large = float(g.detach().abs()) >= math.exp(-p)
        rows.append([g.abs().log() / p, g.sign()] if large else [g * 0 - 1, math.exp(p) * g])
    return torch.stack([torch.stack(row) for row in rows])


class WrittenOut:
    """Algorithm 1 in plain torch: one example after another, one gradient after another."""

    def __init__(self, phi: Tensors, *, summary: str, loss: str, second_order: bool = True) -> None:
        self.phi, self.own = phi, part(phi, "prediction")
        self.summary, self.loss, self.second_order = summary, loss, second_order
        waves = torch.arange(1, 4).double()
        places = (torch.arange(5).double() + 0.5) / 5
        self.classes = torch.cos(math.pi * waves[:, None] * places) * (2 / 5) ** 0.5

    def body(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.phi["initialization/layer0.weight"].T + self.phi["initialization/layer0.bias"])

    def slope(self, loss: Tensor, weights: list[Tensor]) -> list[Tensor]:
        found = torch.autograd.grad(loss, weights, create_graph=True)
        return [one if self.second_order else one.detach() for one in found]

    def reader(self, net: str, slope: Tensor) -> Tensor:
        x = preprocessed(slope)
        for layer in range(3):
            x = x.clamp_min(0) if layer else x
            x = x @ self.own[f"{net}/layer{layer}.weight"].T + self.own[f"{net}/layer{layer}.bias"]
        return 0.1 * x.view(slope.shape)

    def recurrent(self, slopes: list[Tensor]) -> Tensor:
        name = "task_reader/recurrent/layer"
        count = slopes[0].numel()
        hidden, cell = torch.zeros(count, 4).double(), torch.zeros(count, 4).double()
        for slope in slopes:
            gates = preprocessed(slope) @ self.own[f"{name}.input"].T + hidden @ self.own[f"{name}.recurrent"].T
            i, f, o, g = (gates + self.own[f"{name}.bias"]).chunk(4, 1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        last = "task_reader/output/layer0"
        out = hidden @ self.own[f"{last}.weight"].T + self.own[f"{last}.bias"]
        return 0.1 * out.view(slopes[0].shape)

    def embedding_loss(self, index: int, features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        represented = (features @ weight.T + bias).clamp_min(0)
        if self.loss == "cross_entropy":
            return F.cross_entropy(represented[index][None] @ self.classes.T, labels[index][None])
        total = torch.zeros(()).double()
        for other in range(len(labels)):
            if other == index:
                continue
            square = ((represented[index] - represented[other]) ** 2).sum()
            near = labels[index] == labels[other]
            total = total + (square if near else (1 - (square + 1e-12).sqrt()).clamp_min(0) ** 2)
        return total / (len(labels) - 1)

    def logits(self, episode: Episode) -> Tensor:
        features, queries, labels = self.body(episode.support_x), self.body(episode.query_x), episode.support_y
        q_weight, q_bias = self.own["embedding/weight"], self.own["embedding/bias"]
        slopes = [
            self.slope(self.embedding_loss(i, features, labels, q_weight, q_bias), [q_weight, q_bias])
            for i in range(len(labels))
        ]
        if self.summary == "lstm":
            fast = [self.recurrent([one[k] for one in slopes]) for k in range(2)]
        else:
            fast = [self.reader("task_reader", sum(one[k] for one in slopes) / len(labels)) for k in range(2)]

        def represented(x: Tensor) -> Tensor:
            return (x @ q_weight.T + q_bias).clamp_min(0) + (x @ fast[0].T + fast[1]).clamp_min(0)

        weight, bias, classes = self.own["base/weight"], self.own["base/bias"], self.classes.clone().requires_grad_()
        keys, contents = represented(features), list[list[Tensor]]()
        for key, label in zip(keys, labels, strict=True):
            loss = F.cross_entropy((classes @ (weight @ key + bias).clamp_min(0))[None], label[None])
            contents.append([self.reader("example_reader", one) for one in self.slope(loss, [weight, bias, classes])])
        rows = []
        for r in represented(queries):
            attention = torch.stack([10 * torch.cosine_similarity(r, key, 0) for key in keys]).softmax(0)
            own = [sum(a * one[k] for a, one in zip(attention, contents, strict=True)) for k in range(3)]
            hidden = (weight @ r + bias).clamp_min(0) + (own[0] @ r + own[1]).clamp_min(0)
            rows.append((self.classes + own[2]) @ hidden)
        return torch.stack(rows)


@pytest.mark.parametrize("summary", SUMMARIES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("second_order", [True, False])
def test_it_is_the_algorithm_written_out_and_so_is_its_gradient(summary: str, loss: str, second_order: bool) -> None:
    learner = made(summary=summary, embedding_loss=loss, second_order=second_order)
    phi, state = begun(learner)
    episode, leaves = uneven(POINTS, 1), as_leaves(phi)
    logits = WrittenOut(leaves, summary=summary, loss=loss, second_order=second_order).logits(episode)
    wanted = F.cross_entropy(logits, episode.query_y)
    predicted = learner.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x)
    torch.testing.assert_close(predicted, logits.softmax(1), rtol=1e-8, atol=1e-10)
    step = learner.meta_step(phi, state, [episode], seeded(0))
    assert step.loss == pytest.approx(float(wanted.detach()), rel=1e-10)
    for leaf, slope in zip(leaves, torch.autograd.grad(wanted, list(leaves.values())), strict=True):
        torch.testing.assert_close(step.gradient[leaf], slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("summary", SUMMARIES)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_beside_the_kinks(summary: str, loss: str) -> None:
    """ReLU and the preprocessing have kinks; steps as short as these seldom cross one."""
    learner = made(summary=summary, embedding_loss=loss)
    errors = errors_by_slot(learner, [uneven(POINTS, 2)], length=1e-7)
    assert max(errors.values()) < 1e-6, errors


def test_a_constant_gradient_is_another_hypergradient_and_says_so() -> None:
    exact, constant = made(), made(second_order=False)
    phi, state = begun(exact)
    one, other = (at.meta_step(phi, state, [uneven(POINTS, 3)], seeded(0)).gradient for at in (exact, constant))
    assert not torch.allclose(one["initialization/layer0.weight"], other["initialization/layer0.weight"])
    assert "second_order: false" in constant.solver.approximation  # type: ignore[attr-defined]
    assert exact.solver.approximation == ""  # type: ignore[attr-defined]


def test_the_order_of_examples_matters_to_the_lstm_alone() -> None:
    order, episode = torch.randperm(6, generator=seeded(1)), uneven(POINTS, 4)
    shuffled = Support(episode.support_x[order], episode.support_y[order])
    for summary in SUMMARIES:
        learner = made(summary=summary)
        phi, state = begun(learner)
        plain, other = (
            learner.adapt(phi, state, one, seeded(0)).predict(episode.query_x) for one in (episode.support, shuffled)
        )
        assert torch.allclose(plain, other, rtol=1e-9, atol=1e-12) == (summary == "mean")


def test_classes_that_are_renamed_with_their_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, labels = made(), torch.tensor([2, 0, 1])
    phi, state = begun(learner)
    episode = uneven(POINTS, 5)
    plain = learner.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x)

    def renamed(ways: int, width: int, like: Tensor) -> Tensor:
        return class_directions(ways, width, like)[labels.argsort()]

    monkeypatch.setattr(meta_networks, "class_directions", renamed)
    other = Support(episode.support_x, labels[episode.support_y])
    permuted = learner.adapt(phi, state, other, seeded(0)).predict(episode.query_x)
    torch.testing.assert_close(permuted[:, labels], plain, rtol=1e-9, atol=1e-12)


def test_one_query_at_a_time_equals_all_together_and_padding_changes_nothing() -> None:
    learner, episode = made(), uneven(POINTS, 6)
    phi, state = begun(learner)
    adapted = learner.adapt(phi, state, episode.support, seeded(0))
    together = adapted.predict(episode.query_x)
    alone = torch.cat([adapted.predict(one[None]) for one in episode.query_x])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-12)
    filled = Support(
        torch.cat([episode.support_x, 50 * episode.support_x[:2]]),
        torch.cat([episode.support_y, episode.support_y[:2]]),
        mask=torch.tensor([True] * 6 + [False] * 2),
    )
    torch.testing.assert_close(learner.adapt(phi, state, filled, seeded(0)).predict(episode.query_x), together)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("case", ["one example a class", "one example", "duplicates", "an empty class", "large"])
def test_it_is_finite_in_float32(loss: str, case: str) -> None:
    learner = made(embedding_loss=loss)
    phi = learner.init(seeded(0))
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


def test_any_number_of_classes_below_the_width() -> None:
    rows = class_directions(4, 9, torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(rows @ rows.T, torch.eye(4).double())
    torch.testing.assert_close(rows.sum(1), torch.zeros(4).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(class_directions(8, 9, rows)[:4], rows)
    few, many = (made(TaskShape("classification", (6,), ways, classes=9)) for ways in (2, 4))
    one, other = (learner.init(seeded(0)) for learner in (few, many))
    assert {name: value.shape for name, value in one.items()} == {name: value.shape for name, value in other.items()}
    with pytest.raises(LearnerError, match=r"learner\.prediction\.width: 5 units, but the task has 5 classes"):
        made(TaskShape("classification", (6,), 5, classes=9))


def test_what_is_shown_of_an_episode() -> None:
    learner, episode = made(), uneven(POINTS, 7)
    phi, state = begun(learner)
    shown = learner.inspect(phi, state, episode)
    assert {name: tuple(value.shape) for name, value in shown.items()} == {
        "labels": (6,),
        "query_labels": (7,),
        "support": (6, 5),
        "queries": (7, 5),
        "attention": (7, 6),
    }
    torch.testing.assert_close(shown["attention"].sum(1), torch.ones(7).double())
    cosines = torch.cosine_similarity(shown["queries"][:, None], shown["support"], dim=-1)
    torch.testing.assert_close(shown["attention"], (10 * cosines).softmax(1))


def test_a_plain_forward_pass_is_the_prediction() -> None:
    learner, episode = made(), uneven(POINTS, 8)
    phi, state = begun(learner)
    adapted = learner.adapt(phi, state, episode.support, seeded(0))
    forward, tensors = adapted.plain()
    with torch.no_grad():
        torch.testing.assert_close(forward(tensors, episode.query_x), adapted.predict(episode.query_x))
