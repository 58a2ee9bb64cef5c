"""Example weights against their formulas: per-example gradients one by one, class sizes by hand."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from metaloom.learners.build import SLOTS, make_component
from metaloom.learners.episode import Episode, Support, TaskShape, stack_episodes
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.sample_weights import WEIGHTINGS, Examples, Weighting
from metaloom.learners.solvers.gradient import GradientLearner
from metaloom.learners.tensors import Tensors
from metaloom.testing.problems import SINGLE, SMOOTH, begun, built, episode_of, seeded

FOUR = TaskShape("classification", (6,), 4, single_task=True, counts=(100, 20, 10, 5))


def weighting(kind: str, task: TaskShape = FOUR, **settings: Any) -> Weighting:
    component = make_component(SLOTS["weighting"], {"kind": kind, **settings}, task)
    assert isinstance(component, Weighting)
    return component


def examples(labels: list[int], numbers: list[int] | None = None) -> Examples:
    targets = torch.tensor(labels)
    losses = torch.ones(len(labels), dtype=torch.float64)
    return Examples(losses, targets, None if numbers is None else torch.tensor(numbers))


def online(**weights: Any) -> tuple[GradientLearner, Tensors, Tensors]:
    settings = {"architecture": SMOOTH, "weighting": weights, "update": {"rate": 0.1, "steps": 1}}
    learner = built(settings, SINGLE, inner={"mode": "online"})
    assert isinstance(learner, GradientLearner)
    return learner, *begun(learner)


def test_balanced_ratios_make_every_class_count_alike_and_keep_the_mean_at_one() -> None:
    labels = [label for label, count in enumerate(FOUR.counts) for _ in range(count)]
    found = weighting("class_ratios").weights({}, examples(labels))
    torch.testing.assert_close(found.mean(), torch.ones((), dtype=torch.float64))
    each = [float(found[torch.tensor(labels) == label].sum()) for label in range(4)]
    assert each == pytest.approx([len(labels) / 4] * 4)
    unbalanced = weighting("class_ratios", balance=0.0).weights({}, examples(labels))
    torch.testing.assert_close(unbalanced, torch.ones_like(unbalanced))


def test_ratios_by_hand_multiply_and_soft_labels_mix_them() -> None:
    component = weighting("class_ratios", ratios=[1.0, 1.0, 4.0, 2.0], balance=0.0)
    found = component.weights({}, examples([0, 1, 2, 3]))
    assert (found / found[0]).tolist() == pytest.approx([1.0, 1.0, 4.0, 2.0])
    soft = torch.tensor([[0.5, 0.0, 0.5, 0.0]], dtype=torch.float64)
    mixed = component.weights({}, Examples(torch.ones(1, dtype=torch.float64), soft))
    assert float(mixed / found[0]) == pytest.approx(2.5)


def test_learned_ratios_start_equal_one_for_each_class() -> None:
    component = weighting("class_ratios", ratio={"learn": {}}, balance=0.0)
    phi = component.init({"w": torch.zeros(1, dtype=torch.float64)}, seeded(0))
    assert phi["ratio"].shape == (4,)
    torch.testing.assert_close(component.weights(phi, examples([0, 3])), torch.ones(2, dtype=torch.float64))
    phi["ratio"][3] += 1.0
    found = component.weights(phi, examples([0, 3]))
    assert float(found[1] / found[0]) == pytest.approx(torch.e)


@pytest.mark.parametrize(("squash", "start"), [("sigmoid", 0.5), ("softplus", 0.6931471805599453)])
def test_a_sample_is_weighed_by_its_number_alone(squash: str, start: float) -> None:
    component = weighting("per_sample", squash=squash, normalize=False)
    phi = {name: value.double() for name, value in component.init({}, seeded(0)).items()}
    assert phi["sample"].shape == (135,)
    batch = examples([0, 1, 2], [7, 134, 0])
    assert component.weights(phi, batch).tolist() == pytest.approx([start] * 3)
    phi["sample"][134] = 3.0
    found = component.weights(phi, batch)
    assert found[1] > found[0] == found[2]
    assert component.weights(phi, examples([0, 1])).tolist() == [1.0, 1.0]


def test_reweighting_is_the_clipped_inner_product_of_gradients() -> None:
    """Ren et al., equations 6, 8 and 9, by one gradient for each example."""
    learner, phi, state = online(kind="reweight")
    episode = replace(episode_of(SINGLE, 3), training=True)
    theta = {n: v.clone().requires_grad_() for n, v in state.theta.items()}
    losses = learner.loop.support_losses(phi, theta, episode, 0)
    clean = learner.loop.outer(phi, theta, episode, 0).loss
    aim = torch.autograd.grad(clean, list(theta.values()), retain_graph=True)
    each = [torch.autograd.grad(loss, list(theta.values()), retain_graph=True) for loss in losses]
    products = torch.stack([sum((a * b).sum() for a, b in zip(one, aim, strict=True)) for one in each])  # type: ignore[arg-type]
    assert 0 < int((products > 0).sum()) < len(products)
    weights = products.clamp_min(0) / products.clamp_min(0).sum()

    moved = learner.advance(phi, state, [episode], seeded(0))
    for index, (name, value) in enumerate(theta.items()):
        expected = value - 0.1 * sum(w * one[index] for w, one in zip(weights, each, strict=True))
        torch.testing.assert_close(moved.theta[name], expected.detach(), rtol=1e-10, atol=1e-14)


def test_the_clean_loss_falls_along_eps_as_the_weights_say() -> None:
    """u_i is the derivative of the clean loss by eps_i of one virtual step, here by a central difference."""
    learner, phi, state = online(kind="reweight")
    episode = replace(episode_of(SINGLE, 4), training=True)
    theta = state.theta
    linear = learner.loop.example_gradients(phi, theta, theta, episode, 0)
    aligned = linear.push(linear.gradient_of(lambda moved: learner.loop.outer(phi, moved, episode, 0).loss))

    def clean(eps: torch.Tensor) -> float:
        slope = linear.pull(eps)
        return float(learner.loop.outer(phi, {n: v - slope[n] for n, v in theta.items()}, episode, 0).loss)

    for index in range(len(aligned)):
        eps = torch.zeros_like(aligned)
        eps[index] = 1e-5
        assert -(clean(eps) - clean(-eps)) / 2e-5 == pytest.approx(float(aligned[index]), rel=1e-7, abs=1e-10)


def test_an_evaluated_tasks_query_labels_are_never_looked_at() -> None:
    settings = {"architecture": SMOOTH, "initialization": {"kind": "learned"}, "weighting": {"kind": "reweight"}}
    learner = built({**settings, "update": {"rate": 0.1, "steps": 2}}, SINGLE)
    uniform = built({**settings, "weighting": {"kind": "uniform"}, "update": {"rate": 0.1, "steps": 2}}, SINGLE)
    phi, state = begun(learner)
    episode = episode_of(SINGLE, 1)
    found = learner.evaluate(phi, state, episode, seeded(0))
    assert found.losses == pytest.approx(uniform.evaluate(phi, state, episode, seeded(0)).losses, rel=1e-12)


def test_a_batch_that_does_not_help_moves_nothing() -> None:
    """All inner products negative: support and query hold the same inputs under opposite labels."""
    task = TaskShape("classification", (6,), 2, single_task=True)
    learner = built(
        {"architecture": {"kind": "mlp", "hidden": []}, "weighting": {"kind": "reweight"}, "update": {"steps": 1}},
        task,
        inner={"mode": "online"},
    )
    phi, state = begun(learner)
    x = torch.ones(1, 6, dtype=torch.float64)
    episode = Episode(Support(x, torch.tensor([0])), x, torch.tensor([1]))
    moved = learner.advance(phi, state, [episode], seeded(0))
    assert all(torch.equal(moved.theta[name], value) for name, value in state.theta.items())


class Tall(Weighting):
    """A plugin's weighting that forgets to squeeze."""

    def weights(self, phi: Tensors, examples: Examples) -> torch.Tensor:
        return examples.losses.unsqueeze(-1)


@pytest.mark.parametrize("settings", [{"kind": "tall"}, [{"kind": "focal"}, {"kind": "tall"}]])
@pytest.mark.parametrize("strategy", ["loop", "vmap", "traced"])
def test_weights_of_a_wrong_shape_are_refused(monkeypatch: pytest.MonkeyPatch, settings: Any, strategy: str) -> None:
    monkeypatch.setitem(WEIGHTINGS._entries, "tall", Tall)
    slots = {"architecture": SMOOTH, "initialization": {"kind": "learned"}, "update": {"rate": 0.1, "steps": 2}}
    learner = built({**slots, "weighting": settings}, SINGLE, strategy=strategy)
    phi, state = begun(learner)
    episodes = [replace(episode_of(SINGLE, seed), training=True) for seed in (1, 2)]
    message = r"learner\.weighting: tall returned weights of shape \[6, 1\]; wanted \[6\], one per example"
    with pytest.raises(LearnerError, match=message):
        learner.meta_step(phi, state, episodes, seeded(0))


def test_stacked_episodes_keep_their_samples_numbers() -> None:
    episodes = [episode_of(SINGLE, 1), episode_of(SINGLE, 2)]
    stacked = stack_episodes(episodes)
    assert stacked.sample_ids is not None
    assert stacked.sample_ids.tolist() == [[1, 2, 3, 4, 5, 6], [2, 3, 4, 5, 6, 7]]
    assert stack_episodes([replace(episodes[0], sample_ids=None), episodes[1]]).sample_ids is None
