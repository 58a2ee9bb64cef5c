"""One contract for every method and every component: a new entry without a row here fails."""

from collections.abc import Mapping

import pytest
import torch

from metaloom.learners import METHODS, SLOTS, Learner
from metaloom.learners.component import Component
from metaloom.learners.episode import TaskShape
from metaloom.learners.tensors import Tensors
from tests.support.bilevel import IMAGES, episode_of, errors_by_slot, seeded
from tests.support.registry_rows import COMPONENT_ROWS, METHOD_ROWS, begun, component_learner, learnable, method

LEARNING = [name for name, row in METHOD_ROWS.items() if row[2] > 0]
ONLINE = [
    "meta_weight_net",
    "learning_to_reweight",
    "data_cleaning",
    "learned_loss",
    "dada",
    "darts",
    "darts_first_order",
    "gdas",
    "pc_darts",
    "cross_entropy",
]


def trained(learner: Learner, task: TaskShape, rate: float, steps: int) -> tuple[Tensors, Tensors, list[float]]:
    """Take outer steps of normalized gradient descent, and return phi, the state and the query losses."""
    phi, state = begun(learner)
    losses = []
    for step in range(steps):
        episodes = [learnable(task, seed) for seed in range(2 if not learner.online else 1)]
        seen = learner.meta_step(phi, state, episodes, seeded(step))
        moved = {n: phi[n] - rate * g / (g.abs().max() + 1e-12) for n, g in seen.gradient.items()}
        phi, state = moved, learner.advance(moved, seen.state, episodes, seeded(step))
        losses.append(seen.loss)
    return phi, state, losses


def test_every_method_has_a_row() -> None:
    assert set(METHOD_ROWS) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_is(name: str) -> None:
    recipe = METHODS[name]
    assert recipe.summary
    assert recipe.paper
    assert set(recipe.learner) <= set(SLOTS)
    learner, task = method(name)
    assert learner.task == task
    assert learner.online == (name in ONLINE)
    assert learner.setting in ("inductive", "transductive")


@pytest.mark.parametrize("name", LEARNING)
def test_every_leaf_of_phi_gets_a_finite_nonzero_gradient(name: str) -> None:
    learner, task = method(name)
    phi, state = begun(learner)
    assert phi
    gradient: Tensors = {}
    for _ in range(2):  # Meta-Weight-Net's first layer, say, may see nothing at the very first losses
        seen = learner.meta_step(phi, state, [learnable(task, 1), learnable(task, 2)], seeded(0))
        state, gradient = seen.state | state, seen.gradient
    assert set(gradient) == set(phi)
    for leaf, value in gradient.items():
        assert value.shape == phi[leaf].shape
        assert value.dtype == phi[leaf].dtype
        assert torch.isfinite(value).all(), leaf
        assert float(value.abs().max()) > 0, leaf


@pytest.mark.parametrize("name", METHODS)
def test_equal_seeds_give_equal_phi(name: str) -> None:
    learner, task = method(name)
    rate = METHOD_ROWS[name][2]
    first, again = (trained(learner, task, rate, 2) for _ in range(2))
    for one, other in zip(first[:2], again[:2], strict=True):
        assert set(one) == set(other)
        assert all(torch.equal(one[leaf], other[leaf]) for leaf in one)
    assert first[2] == again[2]
    one, other = (begun(learner, seed) for seed in (0, 1))
    assert not _same(one[0] | one[1], other[0] | other[1]) or not one[0] | one[1]


def _same(left: Tensors, right: Tensors) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("name", LEARNING)
def test_meta_training_lowers_the_query_loss(name: str) -> None:
    learner, task = method(name)
    losses = trained(learner, task, METHOD_ROWS[name][2], 18 if learner.online else 10)[2]
    assert losses[-1] < 0.95 * losses[0], losses


@pytest.mark.parametrize("name", METHODS)
def test_evaluation_and_adaptation_agree_and_change_nothing(name: str) -> None:
    learner, task = method(name)
    phi, state, _ = trained(learner, task, METHOD_ROWS[name][2], 1)
    episode = learnable(task, 7)
    before = {leaf: value.clone() for leaf, value in (phi | state).items()}
    outcome = learner.evaluate(phi, state, episode, seeded(0))
    adapted = learner.adapt(phi, state, episode.support, seeded(0))
    predicted = adapted.predict(episode.query_x)
    assert predicted.shape == (12, task.outputs)
    if task.kind == "classification":
        torch.testing.assert_close(predicted.sum(-1), torch.ones(12, dtype=torch.float64))
        accuracy = float((predicted.argmax(-1) == episode.query_y).double().mean())
        assert accuracy == pytest.approx(outcome.accuracies[-1])
    assert len(outcome.losses) == learner.evaluation_steps + 1
    assert all(torch.equal(value, (phi | state)[leaf]) for leaf, value in before.items())


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("reptile", "first_order_maml")])
def test_the_claimed_gradient_is_that_of_the_objective(name: str) -> None:
    """All but the methods that say they are biased; the first order of DARTS and its like is by its definition too."""
    learner, task = method(name)
    if not METHOD_ROWS[name][2] or name in ("darts_first_order", "gdas", "pc_darts", "imaml"):
        pytest.skip("nothing is learned, or the estimate is an approximation by definition")
    short = task == IMAGES
    errors = errors_by_slot(learner, [episode_of(task, 1)], length=1e-8 if short else 1e-4, directions=1)
    assert max(errors.values()) < 1e-5, errors


def test_every_component_has_a_row() -> None:
    assert set(COMPONENT_ROWS) == {(slot, kind) for slot in SLOTS for kind in SLOTS[slot].registry}


def test_every_slot_has_its_defaults() -> None:
    for slot in SLOTS.values():
        assert slot.fixed in slot.registry
        assert slot.learned is None or slot.registry[slot.learned].learns


@pytest.mark.parametrize(("slot", "kind"), COMPONENT_ROWS)
def test_a_component_and_all_it_learns_get_a_gradient(slot: str, kind: str) -> None:
    learner, task = component_learner(slot, kind)
    phi, state = begun(learner)
    learned = {name for name in phi if name.startswith(f"{slot}/")}
    component = SLOTS[slot].registry[kind]
    assert issubclass(component, Component)
    assert component.slot == slot
    knobs = {name for name, value in COMPONENT_ROWS[slot, kind].items() if isinstance(value, Mapping)}
    assert bool(learned) == (component.learns or bool(knobs))
    assert all(any(name.startswith(f"{slot}/{knob}") for name in learned) for knob in knobs)
    seen = learner.meta_step(phi, state, [episode_of(task, 1), episode_of(task, 2)], seeded(0))
    for leaf, value in seen.gradient.items():
        assert torch.isfinite(value).all(), leaf
        assert float(value.abs().max()) > 0, leaf


@pytest.mark.parametrize(("slot", "kind"), COMPONENT_ROWS)
def test_a_component_starts_equal_from_equal_seeds(slot: str, kind: str) -> None:
    learner, _ = component_learner(slot, kind)
    first, again = learner.init(seeded(3)), learner.init(seeded(3))
    assert set(first) == set(again)
    assert _same(first, again)
