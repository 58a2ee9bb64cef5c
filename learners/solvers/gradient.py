"""Learners that solve a task by gradient steps, episodic or online: one engine for all of them."""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial

import torch
from torch import Generator

from metaloom.learners.base import Answers, EpisodeOutcome, Learner, MetaStep
from metaloom.learners.episode import Episode, Episodes, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import Estimator, Outer, Problem, ValueEstimator, solution
from metaloom.learners.knowledge.initialization import FixedInitialization
from metaloom.learners.networks.batch_norm import pooled_statistics, running_average
from metaloom.learners.networks.probes import named_operation
from metaloom.learners.solvers.adapted import AdaptedByGradient
from metaloom.learners.solvers.base import INDUCTIVE, TRANSDUCTIVE, setting_of
from metaloom.learners.solvers.execution import choose_strategy, make_execution
from metaloom.learners.solvers.inner_loop import InnerConfig, InnerLoop
from metaloom.learners.solvers.multi_step_loss import step_weights
from metaloom.learners.solvers.slots import Slots, check_plain
from metaloom.learners.state import LearnerState, declare_place, knowledge_of
from metaloom.learners.tensors import InnerState, Tensors, under

NORMALIZATION = declare_place("normalization", "batch norm's gamma and beta of every inner step")


class GradientLearner(Learner):
    """A learner put together from slots, an estimator and an execution strategy."""

    estimator = ""  # a subclass that differentiates another loss names its own

    def __init__(
        self,
        slots: Slots,
        inner: InnerConfig,
        task: TaskShape,
        estimator: Estimator,
        strategy: str = "auto",
        reason: str = "",
    ) -> None:
        self.slots, self.inner, self.task = slots, inner, task
        self.loop: InnerLoop = (task.task_kind.inner_loop or InnerLoop)(slots, inner, task)
        self.estimator_object, self.estimator_reason = estimator, reason
        self.estimator = self.estimator or estimator.name
        self.online, self.carry = inner.mode == "online", inner.carry
        self.persists = self.online or self.carry > 1
        self.notes = self.loop.notes
        self.strategy = choose_strategy(strategy, estimator, slots, self.persists, varying=task.varying)
        if strategy not in ("auto", self.strategy):
            obstacle = slots.architecture.refuses(strategy)
            self.notes += (f"outer.strategy: {strategy} cannot run learner.architecture ({obstacle}); loop runs it",)
        self.execution = make_execution(self.strategy, estimator, slots)
        self.evaluation_steps = 0 if self.online else slots.update.evaluation_steps
        has_norm = slots.architecture.has_batch_norm
        self.batch_norm = inner.batch_norm if has_norm else "none"
        self.setting = setting_of(INDUCTIVE, slots.architecture, self.batch_norm)
        if estimator.functional and (obstacle := slots.architecture.refuses("forward")):
            raise LearnerError(
                f"outer.hypergradient: {estimator.name} needs forward derivatives, which learner.architecture does not "
                f"have ({obstacle}); use unroll"
            )
        if inner.batch_norm == "per_step" and not has_norm:
            raise LearnerError("inner.batch_norm: per_step needs a network with batch norm, such as conv4")

    @property
    def approximations(self) -> Mapping[str, str]:
        notes = {name: one.approximation for name, one in self.slots.items() if one.has_knowledge}
        return {name: note for name, note in notes.items() if note}

    def init(self, generator: Generator) -> Tensors:
        """Draw the network, and collect every slot's part of phi."""
        drawn = self.slots.architecture.initial(generator)
        theta = self._without_per_step_norm(drawn)
        phi: Tensors = {}
        moved = {name: value for name, value in theta.items() if not self.slots.update.freezes(name)}
        for name, component in self.slots.items():
            # of a frozen parameter no start is learned: the state holds it
            phi |= under(name, component.init(moved if name == "initialization" else theta, generator))
        steps = self.slots.update.config.steps
        norms = {name: value for name, value in drawn.items() if name not in theta}
        return phi | under(NORMALIZATION, {k: v.repeat(steps, *[1] * v.ndim) for k, v in norms.items()})

    def _without_per_step_norm(self, theta: Tensors) -> Tensors:
        """Return the parameters that start the inner loop: without gamma and beta where every step has its own."""
        if self.inner.batch_norm != "per_step":
            return theta
        norms = self.slots.architecture.norm_parameters()
        return {name: value for name, value in theta.items() if name not in norms}

    def begin(self, phi: Tensors, generator: Generator) -> LearnerState:
        """Return theta and its buffers (online, or a start that is not learned), and the outer step's number."""
        network = self.slots.architecture
        running = network.begun_running(self.batch_norm)
        state = LearnerState(torch.zeros((), dtype=torch.int64), running=running, fixed=network.fixed)
        if isinstance(self.slots.initialization, FixedInitialization):
            theta = self._without_per_step_norm(self.slots.initialization.draw(self.slots.architecture, generator))
        elif self.slots.update.config.frozen:
            drawn = self._without_per_step_norm(self.slots.architecture.initial(generator))
            theta = {name: value for name, value in drawn.items() if self.slots.update.freezes(name)}
        else:
            return state
        if not self.online:
            return replace(state, inner=InnerState(theta, {}))
        inner = InnerState(theta, self.slots.update.begin(theta))
        return replace(state, inner=inner, estimator=self.estimator_object.begin(phi, inner))

    def measured(self, phi: Tensors, state: LearnerState, episodes: Iterable[Episode]) -> LearnerState:
        if not self.slots.architecture.lacks_running(self.batch_norm, state.running):
            return state
        theta, each = self._start_of_episode(phi, state).theta, []
        with torch.no_grad():
            for episode in episodes:
                x = torch.cat([episode.support_x, episode.query_x])
                each.append(self.loop.forward(phi, theta, x, 0).statistics)
        return replace(state, running=pooled_statistics(each))

    def _start_of_episode(self, phi: Tensors, state: LearnerState) -> InnerState:
        """Return the start of an inner loop: the state's theta, or phi's."""
        if self.online and state.inner is not None:
            return state.inner
        theta = state.theta | knowledge_of(phi, "initialization")
        return InnerState(theta, self.slots.update.begin(theta))

    def _start_of_outer_step(self, phi: Tensors, state: LearnerState, outer_step: int) -> InnerState:
        """Return the start of an outer step's inner loop: a new one, or the end of the one before (``carry``)."""
        if outer_step % self.inner.carry == 0 or state.carried is None:
            return self._start_of_episode(phi, state)
        return state.carried

    def _resampled(self, state: LearnerState, generator: Generator, *, training: bool) -> LearnerState:
        """Redraw the start where each outer step, or each evaluated task, has its own."""
        start = self.slots.initialization
        if not isinstance(start, FixedInitialization) or state.inner is None:
            return state
        if not (start.resamples if training else start.resamples_evaluated):
            return state
        like = next(iter(state.theta.values()))
        drawn = self._without_per_step_norm(start.draw(self.slots.architecture, generator))
        theta = {name: value.to(like) for name, value in drawn.items()}
        return replace(state, inner=InnerState(theta, state.inner.buffers))

    def _prepared(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> list[Episode]:
        """Mark episodes as training ones, and draw the random numbers of their inner loops."""
        steps, outer_step = self.slots.update.config.steps, state.step
        for episode in episodes:
            check_plain(episode.support)
        marked = [replace(one, training=True) for one in episodes]
        draw = partial(self.slots.draw, outer_step=outer_step, batch_size=self.inner.batch_size)
        return [draw(phi, one, steps, generator, training=True) for one in marked]

    def hypergradient(
        self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator
    ) -> tuple[Tensors, Outer, dict[str, float], LearnerState]:
        """Return what ``meta_step`` is made of: the mean hypergradient, outer evaluations, diagnostics, the next state.

        The evaluations have a leading dimension of episodes. Under a strategy that batches everything is a tensor, so
        that one ``torch.vmap`` can run many configurations, whose fixed numbers are then tensors.
        """
        kept = self._resampled(state, generator, training=True)
        episodes, outer_step = self._prepared(phi, kept, episodes, generator), kept.step
        weights = step_weights(self.inner, self.slots.update.config.steps, outer_step)
        execution, loop = self.execution.of(episodes), self.loop
        if execution.functional or self.estimator_object.functional:
            loop = replace(loop, functional=True)

        def pose(begun: LearnerState, episode: Episode) -> Problem:
            start = partial(self._start_of_outer_step, state=begun, outer_step=outer_step)
            marked = replace(episode, training=True)  # a mark is no tensor, so that batching loses it
            return replace(loop.problem(start, marked, weights), generator=generator, memory=begun.estimator)

        with named_operation():
            gradient, outers, diagnostics, memory = execution.run(pose, phi, kept, episodes, key=weights)
        running = self._averaged(kept, {name: value.mean(0) for name, value in outers.statistics.items()})
        after = replace(counted(kept), estimator=kept.estimator | dict(memory), running=running)
        return gradient, outers, diagnostics, after

    def _averaged(self, state: LearnerState, statistics: Tensors) -> Tensors:
        """Return batch norm's running statistics after a pass, where they are read."""
        read = self.batch_norm == "frozen"
        return state.running | running_average(state.running, statistics) if read else state.running

    def meta_step(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> MetaStep:
        if not phi and self.online and (plain := self._plain_step(state, episodes, generator)) is not None:
            return plain
        gradient, outers, diagnostics, after = self.hypergradient(phi, state, episodes, generator)
        each = zip(outers.loss.tolist(), outers.accuracy.tolist(), strict=True)
        outcomes = tuple(self._training_outcome(loss, accuracy) for loss, accuracy in each)
        return MetaStep(float(outers.loss.mean()), gradient, outcomes, diagnostics, after)

    def _plain_step(self, state: LearnerState, episodes: Episodes, generator: Generator) -> MetaStep | None:
        """Take the real inner step, once, where nothing is learned: it is the one that the pass would differentiate.

        None where it is not: a random step draws other numbers than the pass, and several episodes have steps in turn.
        """
        (episode, *others) = self._prepared({}, state, episodes, generator.clone_state())
        resampled = self._resampled(state, generator.clone_state(), training=True) is not state
        if others or episode.noise or resampled or not isinstance(self.estimator_object, ValueEstimator):
            return None
        problem = self.loop.problem(partial(self._start_of_episode, state=state), episode)
        self.estimator_object.check(problem)
        with named_operation(), torch.no_grad():
            inner = solution(problem, {})
            outer = problem.outer({}, inner.theta, problem.steps)
        outcome = self._training_outcome(float(outer.loss), float(outer.accuracy))
        running = self._averaged(state, outer.statistics)
        after = replace(counted(state), inner=inner, running=running)
        return MetaStep(float(outer.loss), {}, (outcome,), {}, after, advanced=True)

    def objective(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> float:
        """Run every inner loop without a graph, and return the mean (multi-step) outer loss."""
        kept = self._resampled(state, generator, training=True)
        episodes = self._prepared(phi, kept, episodes, generator)
        weights = step_weights(self.inner, self.slots.update.config.steps, kept.step)
        start = partial(self._start_of_outer_step, state=kept, outer_step=kept.step)
        return sum(self.loop.problem(start, episode, weights).value(phi)[0] for episode in episodes) / len(episodes)

    def _training_outcome(self, loss: float, accuracy: float) -> EpisodeOutcome:
        """Return the outcome after the last step; the steps before it are not measured while training (NaN)."""
        blank = (float("nan"),) * self.slots.update.config.steps
        return EpisodeOutcome.of(self.task.task_kind, (*blank, loss), (*blank, accuracy))

    def advance(self, phi: Tensors, state: LearnerState, episodes: Episodes, generator: Generator) -> LearnerState:
        """Take the real inner steps on every episode's support batch, with the new phi (online, or carried on)."""
        if not self.persists:
            return state
        for episode in episodes:
            (drawn,) = self._prepared(phi, state, [episode], generator)
            # the outer step that these inner steps belong to has been counted already
            start = partial(self._start_of_outer_step, state=state, outer_step=state.step - 1)
            after = solution(self.loop.problem(start, drawn), phi)
            state = replace(state, inner=after) if self.online else replace(state, carried=after)
        return state

    def _evaluated(
        self, phi: Tensors, state: LearnerState, episode: Episode, generator: Generator
    ) -> tuple[InnerLoop, Episode, Problem]:
        """Return a new task's inner loop, its episode with random numbers, and its problem."""
        kept = self._resampled(state, generator, training=False)
        steps, size = self.evaluation_steps, self.inner.batch_size
        episode = self.slots.draw(phi, episode, steps, generator, training=False, batch_size=size)
        loop = replace(self.loop, running=kept.running) if self.batch_norm == "frozen" else self.loop
        return loop, episode, loop.problem(partial(self._start_of_episode, state=kept), episode)

    def inspect(self, phi: Tensors, state: LearnerState, episode: Episode) -> Tensors:
        _, drawn, problem = self._evaluated(phi, state, episode, torch.Generator().manual_seed(0))
        with torch.no_grad():
            return self.loop.inspect(phi, drawn, problem.states(phi, self.evaluation_steps))

    def evaluate(self, phi: Tensors, state: LearnerState, episode: Episode, generator: Generator) -> EpisodeOutcome:
        _, _, problem = self._evaluated(phi, state, episode, generator)
        with torch.no_grad():
            states = enumerate(problem.states(phi, self.evaluation_steps))
            return self._measured([problem.outer(phi, at.theta, taken) for taken, at in states])

    def predictions(self, phi: Tensors, state: LearnerState, episode: Episode, generator: Generator) -> Answers:
        loop, drawn, problem = self._evaluated(phi, state, episode, generator)
        return loop.answers(phi, drawn, problem.states(phi, self.evaluation_steps))

    def evaluate_both(
        self, phi: Tensors, state: LearnerState, episode: Episode, generator: Generator
    ) -> tuple[EpisodeOutcome, EpisodeOutcome]:
        """Adapt once: the support set's passes are the same in both settings, and only the query's differ."""
        loop, drawn, problem = self._evaluated(phi, state, episode, generator)
        with torch.no_grad():
            states = list(problem.states(phi, self.evaluation_steps))
            outers = [problem.outer(phi, at.theta, taken) for taken, at in enumerate(states)]
            alone = replace(loop, of_support=True).outer(phi, states[-1].theta, drawn, self.evaluation_steps)
        return self._measured(outers), self._measured([alone])

    def _measured(self, outers: Sequence[Outer]) -> EpisodeOutcome:
        losses, accuracies = [float(one.loss) for one in outers], [float(one.accuracy) for one in outers]
        return EpisodeOutcome.of(self.task.task_kind, losses, accuracies)

    def inductive(self) -> "GradientLearner | None":
        if self.setting != TRANSDUCTIVE:
            return None
        other = copy(self)
        other.loop = replace(self.loop, of_support=True)
        other.setting = INDUCTIVE
        other.batch_norm = "support" if self.batch_norm == "batch" else f"{self.batch_norm}, of the support set"
        return other

    def adapt(self, phi: Tensors, state: LearnerState, support: Support, generator: Generator) -> AdaptedByGradient:
        check_plain(support)
        task = Episode(support, support.x[:0], support.y[:0])
        loop, episode, problem = self._evaluated(phi, state, task, generator)
        with torch.no_grad():
            start, theta = problem.start(phi).theta, solution(problem, phi, self.evaluation_steps).theta
        adapted = AdaptedByGradient(loop, phi, theta, episode, self.evaluation_steps)
        if not self.evaluation_steps or not self.task.task_kind.labelled or self.task.problem:
            return adapted
        return replace(adapted, losses=(adapted.support_loss(start, 0), adapted.support_loss(theta, adapted.taken)))


def counted(state: LearnerState) -> LearnerState:
    """Return the state one outer step later."""
    return state if state.outer_step is None else replace(state, outer_step=state.outer_step + 1)
