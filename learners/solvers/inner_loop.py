r"""The inner loop of every gradient-based learner: slots in, a bilevel ``Problem`` out.

    g_t     = sum_i w_i(l_i) grad l_i(theta_t; augment(data(phi, support))) / n  + proximal * (theta_t - theta_0)
    theta_t+1 = update(phi, theta_t, g_t)

Every slot contributes one factor, so that any subset of them may be learned at once. What is random in a step
comes from ``Episode.noise``, drawn before the first one (``Slots.draw``), so that all of it stays a pure function.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Literal, NamedTuple, Self

import torch
from torch import Tensor

from metaloom.learners.domains import Added, Int, Real
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import Linearized, Outer, Problem
from metaloom.learners.knowledge.loss import SumOfLosses
from metaloom.learners.knowledge.sample_weights import Examples
from metaloom.learners.knowledge.update_rules.base import off
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.solvers.example_gradients import (
    ExampleGradients,
    autograd_gradients,
    functional_gradients,
    gradient_of,
)
from metaloom.learners.solvers.slots import BATCH, ROWS, Slots, noise_of
from metaloom.learners.state import knowledge_of
from metaloom.learners.task_kinds import TaskKind
from metaloom.learners.tensors import InnerState, Tensors, add, detach


@dataclass(frozen=True)
class InnerConfig:
    """The inner section of an experiment.

    Attributes:
        mode: ``episodic`` restarts for every episode; ``online`` keeps theta from one outer step to the next.
        batch_norm: Where a query pass finds its statistics (see ``batch_norm.py``).
        proximal: lambda of iMAML's inner problem: lambda / 2 |theta - theta_0|^2 is added to the support loss.
        multi_step_loss: Outer steps over which MAML++'s per-step outer loss fades to the last step alone; 0 for none.
        trajectory_loss: The outer loss is the sum of the losses after every inner step, not the last one alone.
        carry: Outer steps over which an episodic inner loop goes on with its episode before it restarts: truncated
            backpropagation, ``update.steps`` at a time. An evaluated loop always restarts, and takes its own steps.
        batch_size: How many examples each inner step trains on, drawn from the shuffled support set in turn; None, or
            more than there are, takes all.
    """

    mode: Literal["episodic", "online"] = "episodic"
    batch_norm: Literal["batch", "support", "frozen", "per_step"] = "batch"
    proximal: Annotated[float, Real(1e-3, 100.0, log=True, per=())] = 0.0
    multi_step_loss: Annotated[int, Int(0, 1_000_000)] = 0
    trajectory_loss: bool = False
    carry: Annotated[int, Int(1, 1000)] = 1
    batch_size: Annotated[int | None, Int(1, 1000, log=True), Added()] = None

    def __post_init__(self) -> None:
        if self.carry > 1 and self.mode == "online":
            raise LearnerError("inner.carry: an online inner loop never restarts; remove it, or use episodic")
        if self.trajectory_loss and self.multi_step_loss:
            raise LearnerError(
                "inner.trajectory_loss: it weighs every inner step's loss alike, which inner.multi_step_loss "
                f"({self.multi_step_loss}) does not; keep one of them"
            )


class Pass(NamedTuple):
    """What one forward pass gives: outputs [n, outputs], and batch norm's statistics."""

    outputs: Tensor
    statistics: Tensors


@dataclass(frozen=True)
class InnerLoop:
    """Pure functions of phi and theta for one learner.

    The query set is judged by the outer loss of the kind of task (``TaskKind.outer``), whatever the inner loss.

    Attributes:
        functional: Differentiate by ``torch.func`` (inside vmap or a trace) rather than by autograd's own graph.
        running: Batch norm's running statistics, where every pass is given them.
        of_support: Whether a query pass takes batch norm's statistics from the support set, whatever the mode.
    """

    slots: Slots
    config: InnerConfig
    task: TaskShape
    functional: bool = False
    running: Tensors = field(default_factory=dict)
    of_support: bool = False

    @cached_property
    def kind(self) -> TaskKind:
        """The kind of task."""
        return self.task.task_kind

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user is told once, before anything runs."""
        return ()

    def held(self) -> Self:
        """Return a loop whose random choices are made once, so that its outer loss has the estimate as derivative."""
        return self

    def inspect(self, phi: Tensors, episode: Episode, states: Iterator[InnerState]) -> Tensors:
        """Return what may be drawn of an evaluated episode, by the names of ``Learner.inspect``.

        Here these are the losses of the support set after the inner steps, where their weights are learned.
        """
        if not knowledge_of(phi, "weighting"):
            return {}
        taken, adapted = max(enumerate(states), key=lambda one: one[0])
        noise = noise_of(episode, "architecture", taken)
        x, y = episode.support_x, episode.support_y
        outputs = self.forward(phi, adapted.theta, x, taken, self.running or None, noise).outputs
        return {"example_losses": self.slots.loss.losses(knowledge_of(phi, "loss"), outputs, y)}

    def forward(
        self,
        phi: Tensors,
        theta: Tensors,
        x: Tensor,
        index: int,
        given: Tensors | None = None,
        noise: Tensors | None = None,
    ) -> Pass:
        """Run the network at inner step ``index`` on x [n, *features], with its random numbers of this pass."""
        if self.config.batch_norm == "per_step":
            last = self.slots.update.config.steps - 1
            steps = knowledge_of(phi, "normalization")
            theta = theta | {name: value[min(index, last)] for name, value in steps.items()}
        norm = Normalization(given, fused=not self.functional)
        outputs = self.slots.architecture.outputs(theta, x, norm, knowledge_of(phi, "architecture"), noise)
        return Pass(outputs, norm.collected)

    def support_losses(self, phi: Tensors, theta: Tensors, episode: Episode, index: int) -> Tensor:
        """Return the inner loss of every training example, [n]."""
        x, y, _ = self.trained_on(phi, episode, index)
        noise, own = noise_of(episode, "augmentation", index), knowledge_of(phi, "augmentation")
        x = self.slots.augmentation.transform(own, x, noise)
        noise = noise_of(episode, "architecture", index)
        outputs = self.forward(phi, theta, x, index, self.running or None, noise).outputs
        return self.slots.loss.losses(knowledge_of(phi, "loss"), outputs, y)

    def trained_on(self, phi: Tensors, episode: Episode, index: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the examples of inner step ``index``, their targets, and their ids in the training set, if any."""
        own = knowledge_of(phi, "data")
        (x, y), ids = self.slots.data.batch(own, episode), self.slots.data.sample_ids(own, episode)
        rows = noise_of(episode, BATCH, index).get(ROWS)
        if rows is None:
            return x, y, ids
        return x[rows], y[rows], None if ids is None else ids[rows]

    def losses_from(self, phi: Tensors, theta: Tensors, episode: Episode, index: int) -> Callable[[Tensors], Tensor]:
        """Return the inner losses [n] as a function of some parameters, the others as in ``theta``."""
        return lambda moved: self.support_losses(phi, theta | moved, episode, index)

    def gradient(self, phi: Tensors, theta: Tensors, start: Tensors, episode: Episode, index: int) -> Tensors:
        """Return the inner gradient of the adapted parameters, differentiable where phi or theta are."""
        examples = self.example_gradients(phi, theta, self.slots.update.adapted(theta), episode, index)
        gradient = examples.pull(self._weights(phi, theta, episode, index, examples))
        if self.slots.penalties:
            gradient = add(gradient, self.penalty_gradient(phi, theta, start))
        if off(self.config.proximal):
            return gradient
        return {name: value + self.config.proximal * (theta[name] - start[name]) for name, value in gradient.items()}

    def penalty(self, phi: Tensors, theta: Tensors, start: Tensors) -> Tensor:
        """Return the terms of the parameters in the inner loss: []."""
        assert isinstance(self.slots.loss, SumOfLosses)
        return self.slots.loss.penalty(knowledge_of(phi, "loss"), theta, start)

    def penalty_gradient(self, phi: Tensors, theta: Tensors, start: Tensors) -> Tensors:
        """Return its gradient by the adapted parameters, differentiable where phi, theta or the start are."""
        return gradient_of(
            lambda moved: self.penalty(phi, theta | moved, start),
            self.slots.update.adapted(theta),
            functional=self.functional,
            differentiable=any(one.requires_grad for one in (*phi.values(), *theta.values(), *start.values())),
        )

    def example_gradients(
        self, phi: Tensors, theta: Tensors, fast: Tensors, episode: Episode, index: int
    ) -> ExampleGradients:
        """Linearize the inner loss of every training example at ``theta``, by the parameters ``fast``."""
        losses_at = self.losses_from(phi, theta, episode, index)
        if self.functional:
            return functional_gradients(losses_at, fast)
        differentiable = any(t.requires_grad for t in (*phi.values(), *fast.values()))
        reaching = [value for name, value in phi.items() if not name.startswith(self.slots.beside_the_losses)]
        constant = not any(t.requires_grad for t in (*reaching, *theta.values()))
        return autograd_gradients(losses_at, fast, differentiable=differentiable, constant=constant)

    def _weights(self, phi: Tensors, theta: Tensors, episode: Episode, index: int, linear: ExampleGradients) -> Tensor:
        """Return the factor of each example's gradient, [n]."""
        examples = self._examples(phi, theta, episode, index, linear)
        return self.slots.weighting.scaled(knowledge_of(phi, "weighting"), examples)

    def _examples(
        self, phi: Tensors, theta: Tensors, episode: Episode, index: int, linear: ExampleGradients
    ) -> Examples:
        _, targets, ids = self.trained_on(phi, episode, index)

        def query_loss(moved: Tensors) -> Tensor:
            return self.kind.outer(self.query(phi, theta | moved, episode, index).outputs, episode.query_y)

        return Examples(
            losses=linear.losses,
            targets=targets,
            sample_ids=ids,
            # an evaluated task's query labels may not move its weights
            alignment=(lambda: linear.push(linear.gradient_of(query_loss))) if episode.training else None,
        )

    def example_weights(self, phi: Tensors, theta: Tensors, episode: Episode) -> tuple[Tensor, Tensor]:
        """Return every training example's loss and weight, each [n], at ``theta``."""
        examples = self._examples(phi, theta, episode, 0, self.example_gradients(phi, theta, theta, episode, 0))
        return examples.losses, self.slots.weighting.checked_weights(knowledge_of(phi, "weighting"), examples)

    def linearized(self, phi: Tensors, theta: Tensors, start: Tensors, episode: Episode) -> Linearized:
        """Return the last step's inner gradient, and the inner loss with the example weights of ``theta``."""
        last, strength = self.slots.update.config.steps - 1, self.config.proximal
        fast, proximal = self.slots.update.adapted(theta), not off(strength)
        linear = self.example_gradients(phi, theta, fast, episode, last)
        weights = self._weights(phi, theta, episode, last, linear)
        losses_at, gradient = self.losses_from(phi, theta, episode, last), linear.measure(weights)
        if proximal:
            gradient = {n: value + strength * (theta[n] - start[n]).detach() for n, value in gradient.items()}
        penalized = bool(self.slots.penalties)
        if penalized:
            gradient = add(gradient, detach(self.penalty_gradient(phi, theta, start)))

        def surrogate(moved: Tensors) -> Tensor:
            total = (weights * losses_at(moved)).sum()
            total = total + self.penalty(phi, theta | moved, start) if penalized else total
            return total + sum(0.5 * strength * (moved[n] - start[n]).square().sum() for n in fast if proximal)

        costs_nothing = not (self.functional or proximal or penalized or linear.losses.requires_grad)
        return Linearized(gradient, surrogate, (weights * linear.losses).sum() if costs_nothing else None)

    def query(self, phi: Tensors, theta: Tensors, episode: Episode, taken: int) -> Pass:
        """Predict the query set after ``taken`` inner steps."""
        noise, last = noise_of(episode, "architecture", taken), max(taken - 1, 0)
        given = self.running or None  # batch norm's statistics; None lets the pass use its own batch's
        of_support = self.of_support or self.config.batch_norm == "support"
        if given is None and of_support and self.slots.architecture.has_batch_norm:
            given = self.forward(phi, theta, episode.support_x, last, noise=noise).statistics
        return self.forward(phi, theta, episode.query_x, last, given, noise)

    @torch.no_grad()
    def answers(self, phi: Tensors, episode: Episode, states: Iterator[InnerState]) -> tuple[Tensor, ...]:
        """Return the predictions for the query set at each state: [queries, outputs] each."""
        outputs = (self.query(phi, at.theta, episode, taken).outputs for taken, at in enumerate(states))
        return tuple(map(self.kind.predict, outputs))

    def outer(self, phi: Tensors, theta: Tensors, episode: Episode, taken: int) -> Outer:
        """Evaluate the query set after ``taken`` inner steps."""
        outputs, statistics = self.query(phi, theta, episode, taken)
        return Outer(self.kind.outer(outputs, episode.query_y), self.kind.score(outputs, episode.query_y), statistics)

    def problem(
        self, start: Callable[[Tensors], InnerState], episode: Episode, step_weights: tuple[float, ...] | None = None
    ) -> Problem:
        """Pose one episode as a bilevel problem."""
        rule, proximal = self.slots.update, not off(self.config.proximal)
        steps = rule.config.steps

        def origin(phi: Tensors) -> Tensors:
            return start(phi).theta if proximal or self.slots.penalties else {}

        def update(phi: Tensors, state: InnerState, gradient: Tensors, index: int) -> InnerState:
            if rule.reads_loss:
                loss = self.support_losses(phi, state.theta, episode, index).mean()
                state = InnerState(state.theta, state.buffers | {"loss": loss})
            return rule.step(knowledge_of(phi, "update"), state, gradient, index)

        return Problem(
            steps=steps,
            start=start,
            gradient=lambda phi, theta, index: self.gradient(phi, theta, origin(phi), episode, index),
            update=update,
            outer=lambda phi, theta, taken: self.outer(phi, theta, episode, taken),
            linearized=lambda phi, theta: self.linearized(phi, theta, origin(phi), episode),
            regularization=lambda phi, theta: rule.regularization(knowledge_of(phi, "update"), theta, steps - 1),
            step_weights=step_weights,
        )
