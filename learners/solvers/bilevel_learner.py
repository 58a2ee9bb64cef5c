"""A bilevel problem of one's own as a learner, so that trials, searches and ``check`` run it like any other."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Generator

from metaloom.learners.base import Adapted, EpisodeOutcome, Learner, MetaStep
from metaloom.learners.component import Slot
from metaloom.learners.episode import Episode, Episodes, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.fields import make_config
from metaloom.learners.hypergradients.auto import AUTO
from metaloom.learners.hypergradients.problem import Mapper, Problem
from metaloom.learners.solvers.bilevel import PROBLEMS, UPDATE, Bilevel
from metaloom.learners.solvers.execution import Loop
from metaloom.learners.solvers.inner_loop import InnerConfig
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors


class BilevelLearner(Learner):
    """Averages the hypergradients of a batch of episodes; an episode is the seed of its data.

    The outer loss after each inner step stands where other learners have the loss on the query set.
    """

    def __init__(self, posed: Bilevel, task: TaskShape, hypergradient: str | Mapping[str, Any], mapper: Mapper) -> None:
        self.posed, self.task = posed, task
        phi = posed.initial(torch.Generator().manual_seed(0))
        self.estimator_object, self.estimator_reason = posed.estimator(hypergradient, phi)
        self.estimator, self.evaluation_steps = self.estimator_object.name, posed.rule.evaluation_steps
        self.estimator_object.mapper = mapper

    @property
    def approximations(self) -> Mapping[str, str]:
        rule = self.posed.rule
        return {UPDATE: rule.approximation} if rule.has_knowledge and rule.approximation else {}

    def init(self, generator: Generator) -> Tensors:
        return self.posed.initial(generator)

    def meta_step(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> MetaStep:
        def pose(begun: LearnerState, episode: Episode) -> Problem:
            problem = self._problem(episode, functional=self.estimator_object.functional)
            return replace(problem, generator=generator)

        gradient, outers, diagnostics, _ = Loop(self.estimator_object).run(pose, phi, state, episodes, None)
        losses = [float(loss) for loss in outers.loss]
        blank = (float("nan"),) * self.posed.rule.config.steps
        outcomes = tuple(EpisodeOutcome((*blank, loss)) for loss in losses)
        return MetaStep(sum(losses) / len(losses), gradient, outcomes, diagnostics, state)

    def objective(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> float:
        return sum(self._problem(episode).value(phi)[0] for episode in episodes) / len(episodes)

    def evaluate(self, phi: Tensors, state: LearnerState, episode: Episode, generator: Generator) -> EpisodeOutcome:
        """Return the outer loss before and after each inner step."""
        problem = self._problem(episode)
        with torch.no_grad():
            states = problem.states(phi, self.evaluation_steps)
            losses = [float(problem.outer(phi, at.theta, taken).loss) for taken, at in enumerate(states)]
        return EpisodeOutcome(tuple(losses))

    def adapt(self, phi: Tensors, state: LearnerState, *task: Any) -> Adapted:
        """Refuse: the inner loop of a bilevel problem has no inputs to predict at; always raises LearnerError."""
        raise LearnerError("a bilevel problem of one's own has no examples to adapt to; its result is phi")

    def _problem(self, episode: Episode, *, functional: bool = False) -> Problem:
        seed = 0 if episode.sample_ids is None else int(episode.sample_ids[0])
        return self.posed.problem(self.posed.data(torch.Generator().manual_seed(seed)), functional=functional)


def posed_learner(
    learner: Mapping[str, Any],
    inner: Mapping[str, Any],
    outer: Mapping[str, Any],
    task: TaskShape,
    slots: Mapping[str, Slot],
    mapper: Mapper,
) -> BilevelLearner:
    """Build the learner of a task's problem; raises LearnerError for a slot or an inner setting that plays no part."""
    for name, slot in slots.items():
        if name != UPDATE and not _is_default(slot, learner.get(name, {}), task):
            raise LearnerError(f"learner.{name}: plays no part in a bilevel problem of one's own; remove it")
    given, plain = vars(make_config(InnerConfig, inner, "inner", "the inner loop")), vars(InnerConfig())
    for name in given:
        if given[name] != plain[name]:
            raise LearnerError(f"inner.{name}: plays no part in a bilevel problem of one's own; remove it")
    posed = PROBLEMS[task.problem]().with_update(learner.get(UPDATE, {}))
    return BilevelLearner(posed, task, outer.get("hypergradient", AUTO), mapper)


def _is_default(slot: Slot, given: Any, task: TaskShape) -> bool:
    kind = task.task_kind.default_loss if slot.name == "loss" else slot.fixed
    if not isinstance(given, Mapping) or given.get("kind", kind) != kind:
        return False
    rest, config = {name: value for name, value in given.items() if name != "kind"}, slot.registry[kind].Config
    return bool(make_config(config, rest, f"learner.{slot.name}", kind) == config())
