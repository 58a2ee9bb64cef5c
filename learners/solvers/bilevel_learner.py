"""A bilevel problem of one's own as a learner, so that trials, searches and ``check`` run it like any other."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Generator

from metaloom.learners.base import Adapted, EpisodeOutcome, MetaStep
from metaloom.learners.component import Slot
from metaloom.learners.episode import Episode, Episodes, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.fields import make_config
from metaloom.learners.hypergradients.problem import Mapper, Problem, outer_value
from metaloom.learners.solvers.bilevel import PROBLEMS, Bilevel
from metaloom.learners.solvers.inner_loop import InnerConfig
from metaloom.learners.solvers.routes import UPDATE
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors, add


class BilevelLearner:
    """Averages the hypergradients of a batch of episodes; an episode is the seed of its data.

    The outer loss after each inner step stands where other learners have the loss on the query set.
    """

    online, carry = False, 1
    setting, batch_norm, strategy = "inductive", "none", "loop"
    notes: tuple[str, ...] = ()

    def __init__(self, posed: Bilevel, task: TaskShape, hypergradient: str | Mapping[str, Any], mapper: Mapper) -> None:
        self.posed, self.task = posed, task
        phi = posed.initial(torch.Generator().manual_seed(0))
        self.estimator, self.estimator_object, self.estimator_reason = posed.estimator(hypergradient, phi)
        self.estimator_object.mapper = mapper
        self.evaluation_steps = posed.rule.evaluation_steps

    @property
    def approximations(self) -> dict[str, str]:
        """What the gradients of the update rule's learned settings leave out by design."""
        rule = self.posed.rule
        return {UPDATE: rule.approximation} if rule.has_knowledge and rule.approximation else {}

    def init(self, generator: Generator) -> Tensors:
        """Return phi at its start."""
        return self.posed.initial(generator)

    def begin(self, phi: Tensors, generator: Generator) -> LearnerState:
        """Nothing persists from one outer step to the next."""
        return LearnerState()

    def meta_step(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> MetaStep:
        """Return the hypergradient of the mean outer loss over ``episodes``."""
        estimator, every = self.estimator_object, []
        for episode in episodes:
            problem = self._problem(episode, functional=estimator.functional)
            every.append(estimator(replace(problem, generator=generator), phi))
        total: Tensors = {name: torch.zeros_like(value) for name, value in phi.items()}
        for one in every:
            total = add(total, one.gradient)
        losses = [float(one.outer.loss) for one in every]
        blank = (float("nan"),) * self.posed.rule.config.steps
        return MetaStep(
            loss=sum(losses) / len(losses),
            gradient={name: value / len(every) for name, value in total.items()},
            outcomes=tuple(EpisodeOutcome((*blank, loss)) for loss in losses),
            diagnostics={
                name: sum(one.diagnostics[name] for one in every) / len(every) for name in every[0].diagnostics
            },
            state=state,
        )

    def objective(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> float:
        """Return the mean outer loss after the inner loops."""
        return sum(outer_value(self._problem(episode), phi)[0] for episode in episodes) / len(episodes)

    def advance(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> LearnerState:
        """Nothing persists."""
        return state

    def evaluate(self, phi: Tensors, state: LearnerState, episode: Episode, generator: Generator) -> EpisodeOutcome:
        """Return the outer loss before and after each inner step."""
        problem = self._problem(episode)
        with torch.no_grad():
            moved = problem.start(phi)
            losses = [float(problem.outer(phi, moved.theta, 0).loss)]
            for index in range(self.evaluation_steps):
                moved = problem.step(phi, moved, index)
                losses.append(float(problem.outer(phi, moved.theta, index + 1).loss))
        return EpisodeOutcome(tuple(losses))

    def adapt(self, phi: Tensors, state: LearnerState, *task: Any) -> Adapted:
        """Refuse: what the inner loop solves is a problem of its own, with no inputs to predict at.

        Raises:
            LearnerError: Always.
        """
        raise LearnerError("a bilevel problem of one's own has no examples to adapt to; its result is phi")

    def _problem(self, episode: Episode, *, functional: bool = False) -> Problem:
        seed = 0 if episode.sample_ids is None else int(episode.sample_ids[0])
        return self.posed.problem(self.posed.data(torch.Generator().manual_seed(seed)), functional=functional)


def posed_learner(
    learner: Mapping[str, Any],
    inner: Mapping[str, Any],
    hypergradient: str | Mapping[str, Any],
    task: TaskShape,
    *,
    slots: Mapping[str, Slot],
    mapper: Mapper,
) -> BilevelLearner:
    """Build the learner of a registered problem from an experiment's sections.

    Args:
        learner: ``update`` alone may differ from the defaults.
        inner: All at the defaults.
        hypergradient: The estimator's name or settings.
        task: Names the problem.
        slots: Every slot of a learner, by name.
        mapper: Evaluates the perturbations of an estimator that has some.

    Raises:
        LearnerError: A slot or an inner setting was given, which plays no part in a problem of one's own.
    """
    for name, slot in slots.items():
        if name != UPDATE and not _is_default(slot, learner.get(name, {}), task):
            raise LearnerError(f"learner.{name}: plays no part in a bilevel problem of one's own; remove it")
    given, plain = vars(make_config(InnerConfig, inner, "inner", "the inner loop")), vars(InnerConfig())
    for name in given:
        if given[name] != plain[name]:
            raise LearnerError(f"inner.{name}: plays no part in a bilevel problem of one's own; remove it")
    posed = PROBLEMS[task.problem]().with_update(learner.get(UPDATE, {}))
    return BilevelLearner(posed, task, hypergradient, mapper)


def _is_default(slot: Slot, given: Any, task: TaskShape) -> bool:
    kind = task.task_kind.default_loss if slot.name == "loss" else slot.fixed
    if not isinstance(given, Mapping) or given.get("kind", kind) != kind:
        return False
    rest, config = {name: value for name, value in given.items() if name != "kind"}, slot.registry[kind].Config
    return bool(make_config(config, rest, f"learner.{slot.name}", kind) == config())
