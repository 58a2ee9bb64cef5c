"""What every solver must do: adapt as it is evaluated, keep to its setting, and differentiate its own objective."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from metaloom.learners import Learner, build_learner
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.solvers.amortized import AmortizedLearner
from metaloom.learners.solvers.base import SOLVERS
from metaloom.testing.contract import Contract
from metaloom.testing.methods import FEW_SHOT
from metaloom.testing.problems import SMOOTH, begun, built, central_difference, double, episode_of, seeded

QUERIES = 12


def few_shot_episode(task: TaskShape, seed: int) -> Episode:
    """Draw an episode of noise with six support examples and twelve queries."""
    return episode_of(task, seed, support=6, queries=QUERIES)


@dataclass(frozen=True)
class SolverRow:
    """A small example of a solver.

    Attributes:
        settings: The solver's own.
        beside: Settings of the slots that it reads.
        task: What it solves.
        episode: Draws an episode with twelve queries, for a solver that reads more than examples and labels.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Any] = field(
        default_factory=lambda: {"architecture": SMOOTH, "initialization": {"kind": "learned"}}
    )
    task: TaskShape = FEW_SHOT
    episode: Callable[[TaskShape, int], Episode] = few_shot_episode

    def built(self, solver: str) -> Learner:
        """Build a learner that solves its tasks so."""
        return built({**self.beside, "prediction": {"kind": solver, **self.settings}}, self.task, estimator="auto")


class SolverContract(Contract):
    """The contract of solvers.

    Attributes:
        rows: A solver's name to its small example.
    """

    rows: Mapping[str, SolverRow] = {}

    def cases(self) -> Mapping[str, Iterable[Any]]:
        return {"solver": self.rows}

    def test_the_gradient_is_that_of_its_objective(self, solver: str) -> None:
        row = self.rows[solver]
        learner = row.built(solver)
        phi, state = begun(learner)
        if not phi:
            assert learner.estimator == "none"
            return
        batch = [row.episode(row.task, seed) for seed in (1, 2)]
        step = learner.meta_step(phi, state, batch, seeded(0))
        direction = {
            leaf: torch.randn(value.shape, dtype=value.dtype, generator=seeded(3)) for leaf, value in phi.items()
        }
        exact = float(sum((direction[leaf] * value).sum() for leaf, value in step.gradient.items()))
        difference = central_difference(lambda p: learner.objective(p, state, batch, seeded(0)), phi, direction, 1e-4)
        assert exact == pytest.approx(difference, rel=1e-6)
        own = [value for leaf, value in step.gradient.items() if leaf.startswith("prediction/")]
        learns = SOLVERS[solver].learns or any(isinstance(one, Mapping) for one in row.settings.values())
        assert bool(own) == learns
        assert not own or any(float(value.abs().max()) > 0 for value in own)

    def test_it_adapts_as_it_is_evaluated_and_changes_nothing(self, solver: str) -> None:
        row = self.rows[solver]
        learner, given = row.built(solver), row.episode(row.task, 0)
        phi, state = begun(learner)
        before = {leaf: value.clone() for leaf, value in (phi | state.flat()).items()}
        outcome = learner.evaluate(phi, state, given, seeded(0))
        predicted = learner.adapt(phi, state, given.support, seeded(0)).predict(given.query_x)
        assert predicted.shape == (QUERIES, row.task.outputs)
        if row.task.task_kind.has_classes:
            torch.testing.assert_close(predicted.sum(-1), torch.ones(QUERIES, dtype=predicted.dtype))
            accuracy = float((predicted.argmax(-1) == given.query_y).double().mean())
            assert outcome.accuracies[-1] == pytest.approx(accuracy)
        assert all(torch.equal(value, (phi | state.flat())[leaf]) for leaf, value in before.items())

    def test_other_queries_matter_only_if_it_says_so(self, solver: str) -> None:
        row = self.rows[solver]
        learner, given = row.built(solver), row.episode(row.task, 0)
        adapted = learner.adapt(*begun(learner), given.support, seeded(0))
        together, alone = adapted.predict(given.query_x), adapted.predict(given.query_x[:1])
        assert torch.allclose(alone, together[:1]) == (learner.setting != "transductive")

    def test_features_in_place_of_examples_change_nothing(self, solver: str) -> None:
        row = self.rows[solver]
        learned, given = row.built(solver), row.episode(row.task, 0)
        if not isinstance(learned, AmortizedLearner) or learned.network is None or not learned.solver.takes_features:
            return
        settings = {**row.beside, "prediction": {"kind": solver, **row.settings}}
        settings["initialization"] = {"kind": "pretrained", "bundle": "handed in as start"}
        start = double(learned.network.parameters(seeded(5)))
        learner = build_learner(learner=settings, inner={}, outer={}, task=row.task, start=start)
        assert isinstance(learner, AmortizedLearner)
        phi, state = begun(learner)
        body = learner.body(phi, state)
        assert body is not None
        mapped = {
            name: body(value) if name in ("support/x", "support/unlabelled", "query_x") else value
            for name, value in given.tensors().items()
        }
        episode, once = Episode.of(mapped), learner.on_features()
        plain = learner.evaluate(phi, state, given, seeded(0))
        assert once.evaluate(phi, state, episode, seeded(0)).losses == pytest.approx(plain.losses, rel=1e-12)
        steps = [one.meta_step(phi, state, [of], seeded(0)).gradient for one, of in ((learner, given), (once, episode))]
        for leaf, value in steps[0].items():
            torch.testing.assert_close(steps[1][leaf], value)
