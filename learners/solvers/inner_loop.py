r"""The inner loop of every gradient-based learner: slots in, a bilevel ``Problem`` out.

    g_t     = sum_i w_i(l_i) grad l_i(theta_t; augment(data(phi, support))) / n  + proximal * (theta_t - theta_0)
    theta_t+1 = update(phi, theta_t, g_t)

Every slot contributes one factor, so that any subset of them may be learned at once. What is random in a step
comes from ``Episode.noise``, drawn before the first one (``Slots.draw``), so that all of it stays a pure function.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Generator, Tensor

from metaloom.learners.component import OUTER_STEP, Component
from metaloom.learners.domains import Int, Real
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import Linearized, Outer, Problem
from metaloom.learners.knowledge.augmentation import Augmentation
from metaloom.learners.knowledge.distilled_data import TrainingData
from metaloom.learners.knowledge.loss import Loss
from metaloom.learners.knowledge.sample_weights import Examples, Weighting
from metaloom.learners.knowledge.update_rules import UpdateRule
from metaloom.learners.knowledge.update_rules.base import off
from metaloom.learners.networks.base import Network
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.solvers.example_gradients import ExampleGradients, autograd_gradients, functional_gradients
from metaloom.learners.state import knowledge_of
from metaloom.learners.task_kinds import TaskKind
from metaloom.learners.tensors import InnerState, Tensors, part, under


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
    """

    mode: Literal["episodic", "online"] = "episodic"
    batch_norm: Literal["batch", "support", "frozen", "per_step"] = "batch"
    proximal: Annotated[float, Real(1e-3, 100.0, log=True, per=())] = 0.0
    multi_step_loss: Annotated[int, Int(0, 1_000_000)] = 0
    trajectory_loss: bool = False
    carry: Annotated[int, Int(1, 1000)] = 1

    def __post_init__(self) -> None:
        if self.carry > 1 and self.mode == "online":
            raise LearnerError("inner.carry: an online inner loop never restarts; remove it, or use episodic")
        if self.trajectory_loss and self.multi_step_loss:
            raise LearnerError(
                "inner.trajectory_loss: it weighs every inner step's loss alike, which inner.multi_step_loss "
                f"({self.multi_step_loss}) does not; keep one of them"
            )


@dataclass(frozen=True)
class Slots:
    """The components of one learner."""

    architecture: Network
    initialization: Component
    update: UpdateRule
    weighting: Weighting
    loss: Loss
    data: TrainingData
    augmentation: Augmentation

    def items(self) -> list[tuple[str, Component]]:
        """Name every slot's component."""
        return [(name, getattr(self, name)) for name in self.__dataclass_fields__]

    @cached_property
    def beside_the_losses(self) -> tuple[str, ...]:
        """Return the prefixes of phi on which no inner loss at a given theta depends."""
        return tuple(f"{name}/" for name, component in self.items() if not component.reaches_losses)

    def draw(
        self, phi: Tensors, episode: Episode, steps: int, generator: Generator, *, training: bool, outer_step: int = 0
    ) -> Episode:
        """Return the episode with its training data selected, and the random numbers of its inner loop by slot."""
        episode = self.data.select(episode, generator)
        random = [(name, component) for name, component in self.items() if component.random]
        if not random:
            return episode
        with torch.no_grad():
            x, _ = self.data.batch(knowledge_of(phi, "data"), episode)
        noise: Tensors = {}
        for name, component in random:
            drawn = component.draw_noise(x, steps, generator, training=training)
            if drawn and component.anneals:
                drawn[OUTER_STEP] = torch.full((steps + 1,), outer_step)
            noise |= under(name, drawn)
        return replace(episode, noise={name: cast_like(value, x) for name, value in noise.items()})


def cast_like(value: Tensor, like: Tensor) -> Tensor:
    """Move a tensor to another's device; a floating one takes its precision too."""
    return value.to(like.device, like.dtype if value.is_floating_point() else value.dtype)


def noise_of(episode: Episode, slot: str, index: int) -> Tensors:
    """Return row ``index`` of a slot's random numbers."""
    return {name: value[index] for name, value in part(episode.noise, slot, optional=True).items()}


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
        x, y = self.slots.data.batch(knowledge_of(phi, "data"), episode)
        noise, own = noise_of(episode, "augmentation", index), knowledge_of(phi, "augmentation")
        x = self.slots.augmentation.transform(own, x, noise)
        noise = noise_of(episode, "architecture", index)
        outputs = self.forward(phi, theta, x, index, self.running or None, noise).outputs
        return self.slots.loss.losses(knowledge_of(phi, "loss"), outputs, y)

    def losses_from(self, phi: Tensors, theta: Tensors, episode: Episode, index: int) -> Callable[[Tensors], Tensor]:
        """Return the inner losses [n] as a function of some parameters, the others as in ``theta``."""
        return lambda moved: self.support_losses(phi, theta | moved, episode, index)

    def gradient(self, phi: Tensors, theta: Tensors, start: Tensors, episode: Episode, index: int) -> Tensors:
        """Return the inner gradient of the adapted parameters, differentiable where phi or theta are."""
        examples = self.example_gradients(phi, theta, self.slots.update.adapted(theta), episode, index)
        gradient = examples.pull(self._weights(phi, theta, episode, index, examples))
        if off(self.config.proximal):
            return gradient
        return {name: value + self.config.proximal * (theta[name] - start[name]) for name, value in gradient.items()}

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
        own = knowledge_of(phi, "data")

        def query_loss(moved: Tensors) -> Tensor:
            return self.kind.outer(self.query(phi, theta | moved, episode, index).outputs, episode.query_y)

        return Examples(
            losses=linear.losses,
            targets=self.slots.data.batch(own, episode)[1],
            sample_ids=self.slots.data.sample_ids(own, episode),
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

        def surrogate(moved: Tensors) -> Tensor:
            total = (weights * losses_at(moved)).sum()
            return total + sum(0.5 * strength * (moved[n] - start[n]).square().sum() for n in fast if proximal)

        costs_nothing = not (self.functional or proximal or linear.losses.requires_grad)
        return Linearized(gradient, surrogate, (weights * linear.losses).sum() if costs_nothing else None)

    def query(self, phi: Tensors, theta: Tensors, episode: Episode, taken: int) -> Pass:
        """Predict the query set after ``taken`` inner steps."""
        noise, last = noise_of(episode, "architecture", taken), max(taken - 1, 0)
        given = self.running or None  # batch norm's statistics; None lets the pass use its own batch's
        of_support = self.of_support or self.config.batch_norm == "support"
        if given is None and of_support and self.slots.architecture.has_batch_norm:
            given = self.forward(phi, theta, episode.support_x, last, noise=noise).statistics
        return self.forward(phi, theta, episode.query_x, last, given, noise)

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
            return start(phi).theta if proximal else {}

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
