"""What every method must do: say what it is, send a gradient to all it learns, learn, and adapt as it is evaluated."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from metaloom.learners import METHODS, SLOTS, Learner, build_learner
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors
from metaloom.testing.contract import Contract
from metaloom.testing.problems import SEARCHED, begun, episode_of, errors_by_slot, seeded

FEW_SHOT = TaskShape("classification", (6,), 3, classes=9)
SMALL: Mapping[str, Any] = {"kind": "mlp", "hidden": [8], "activation": "tanh"}


@dataclass(frozen=True)
class MethodRow:
    """A small example of a method.

    Attributes:
        task: What it learns from.
        learner: Settings of slots beside the recipe's: what makes its big parts small.
        outer_rate: Length of an outer step at which a few steps lower the query loss; 0 where nothing is learned.
        online: Whether it is one that carries its inner parameters on.
        unbiased: Whether its gradient is that of its objective; false where it is an approximation by definition.
    """

    task: TaskShape = FEW_SHOT
    learner: Mapping[str, Any] = field(default_factory=lambda: {"architecture": SMALL})
    outer_rate: float = 0.01
    online: bool = False
    unbiased: bool = True

    def built(self, method: str) -> Learner:
        """Build a method as its recipe says, small."""
        recipe = METHODS[method]
        slots = {*recipe.learner, *self.learner}
        settings = {slot: {**recipe.learner.get(slot, {}), **self.learner.get(slot, {})} for slot in slots}
        outer = {**recipe.outer, "strategy": "loop"}  # a trace costs more than these few steps
        return build_learner(learner=settings, inner=recipe.inner, outer=outer, task=self.task)


def learnable(task: TaskShape, seed: int) -> Episode:
    """Draw an episode that can be learned: every class has its own fixed direction, the same in all episodes."""
    episode = episode_of(task, seed, support=6, queries=12)
    if task.kind == SEARCHED.kind:
        return episode
    if task.environment:
        starts = torch.tensor([0.7, 0.0, 0.0, 0.0], dtype=torch.float64)
        support = replace(episode.support, x=starts + 0.1 * episode.support_x)
        return replace(episode, support=support, query_x=starts + 0.1 * episode.query_x)
    centres = torch.eye(9, max(task.inputs[-1], 6), dtype=torch.float64)[:3, : task.inputs[-1]] * 2

    def moved(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 0.5 * x + centres[y].reshape(-1, *[1] * (len(task.inputs) - 1), task.inputs[-1])

    support = replace(episode.support, x=moved(episode.support_x, episode.support_y))
    return replace(episode, support=support, query_x=moved(episode.query_x, episode.query_y))


def trained(learner: Learner, task: TaskShape, rate: float, steps: int) -> tuple[Tensors, LearnerState, list[float]]:
    """Take outer steps of normalized gradient descent, and return phi, the state and the query losses."""
    phi, state = begun(learner)
    losses = []
    for step in range(steps):
        episodes = [learnable(task, seed) for seed in range(2 if not learner.online else 1)]
        result = learner.meta_step(phi, state, episodes, seeded(step))
        moved = {n: phi[n] - rate * g / (g.abs().max() + 1e-12) for n, g in result.gradient.items()}
        phi, state = moved, learner.advance(moved, result.after(state), episodes, seeded(step))
        losses.append(result.loss)
    return phi, state, losses


def same(left: Tensors, right: Tensors) -> bool:
    """Say whether all tensors of ``left`` are equal to those of ``right``."""
    return all(torch.equal(left[name], right[name]) for name in left)


class MethodContract(Contract):
    """The contract of methods.

    Attributes:
        rows: A method's name to its small example.
    """

    rows: Mapping[str, MethodRow] = {}

    def cases(self) -> Mapping[str, Iterable[Any]]:
        learning = [name for name, row in self.rows.items() if row.outer_rate > 0]
        unbiased = [name for name in learning if self.rows[name].unbiased]
        return {"method": self.rows, "learning": learning, "unbiased": unbiased}

    def test_a_method_says_what_it_is(self, method: str) -> None:
        recipe, row = METHODS[method], self.rows[method]
        assert recipe.summary
        assert recipe.paper
        assert set(recipe.learner) <= set(SLOTS)
        learner = row.built(method)
        assert learner.task == row.task
        assert learner.online == row.online
        assert learner.setting in ("inductive", "transductive")

    def test_every_leaf_of_phi_gets_a_finite_nonzero_gradient(self, learning: str) -> None:
        learner, task = self.rows[learning].built(learning), self.rows[learning].task
        phi, state = begun(learner)
        assert phi
        gradient: Tensors = {}
        for _ in range(2):  # Meta-Weight-Net's first layer, say, may see nothing at the very first losses
            result = learner.meta_step(phi, state, [learnable(task, 1), learnable(task, 2)], seeded(0))
            state, gradient = result.after(state), result.gradient
        assert set(gradient) == set(phi)
        for leaf, value in gradient.items():
            assert value.shape == phi[leaf].shape
            assert value.dtype == phi[leaf].dtype
            assert torch.isfinite(value).all(), leaf
            assert float(value.abs().max()) > 0, leaf

    def test_equal_seeds_give_equal_phi(self, method: str) -> None:
        row = self.rows[method]
        learner = row.built(method)
        first, again = (trained(learner, row.task, row.outer_rate, 2) for _ in range(2))
        for one, other in ((first[0], again[0]), (first[1].flat(), again[1].flat())):
            assert set(one) == set(other)
            assert same(one, other)
        assert first[2] == again[2]
        start, elsewhere = (phi | state.flat() for phi, state in (begun(learner, seed) for seed in (0, 1)))
        assert not same(start, elsewhere) or not start

    def test_meta_training_lowers_the_query_loss(self, learning: str) -> None:
        row = self.rows[learning]
        learner = row.built(learning)
        losses = trained(learner, row.task, row.outer_rate, 18 if learner.online else 10)[2]
        assert losses[-1] < 0.95 * losses[0], losses

    def test_evaluation_and_adaptation_agree_and_change_nothing(self, method: str) -> None:
        row = self.rows[method]
        learner, task = row.built(method), row.task
        phi, state, _ = trained(learner, task, row.outer_rate, 1)
        episode = learnable(task, 7)
        before = {leaf: value.clone() for leaf, value in (phi | state.flat()).items()}
        outcome = learner.evaluate(phi, state, episode, seeded(0))
        adapted = learner.adapt(phi, state, episode.support, seeded(0))
        predicted = adapted.predict(episode.query_x)
        assert predicted.shape == (12, task.outputs)
        if task.kind == "classification":
            torch.testing.assert_close(predicted.sum(-1), torch.ones(12, dtype=torch.float64))
            accuracy = float((predicted.argmax(-1) == episode.query_y).double().mean())
            assert accuracy == pytest.approx(outcome.accuracies[-1])
        assert len(outcome.losses) == learner.evaluation_steps + 1
        assert all(torch.equal(value, (phi | state.flat())[leaf]) for leaf, value in before.items())

    def test_the_claimed_gradient_is_that_of_the_objective(self, unbiased: str) -> None:
        row = self.rows[unbiased]
        pictures = len(row.task.inputs) > 1
        length = 1e-8 if pictures else 1e-4  # a network with max-pooling has kinks: stay beside them
        errors = errors_by_slot(row.built(unbiased), [episode_of(row.task, 1)], length=length, directions=1)
        assert max(errors.values()) < 1e-5, errors
