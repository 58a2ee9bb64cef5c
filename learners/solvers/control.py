"""The inner loop of a control task: trajectories in place of labelled examples, the true return in place of a loss."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from metaloom.learners.environments import judged_by, make_environment
from metaloom.learners.episode import Episode
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import Outer, Problem
from metaloom.learners.knowledge.policy_gradient import ASKED, EXPLORATION, PolicyGradient
from metaloom.learners.knowledge.trajectories import Trajectories, action_of
from metaloom.learners.solvers.example_gradients import ExampleGradients
from metaloom.learners.solvers.inner_loop import InnerLoop
from metaloom.learners.solvers.slots import noise_of
from metaloom.learners.state import knowledge_of
from metaloom.learners.task_kinds import TaskKind, register_task_kind
from metaloom.learners.tensors import InnerState, Tensors, detach

BEFORE, AFTER = "before", "after"  # the inner steps, in the names of what is shown
Key = tuple[str, int, tuple[float, ...]]


@dataclass(frozen=True)
class ControlLoop(InnerLoop):
    """Support and query are starting states; the network is the policy's mean action, or its logits.

    An inner step takes the trajectories of the policy at theta as given, and moves theta by the surrogate loss of
    them. The query set is judged by minus the true return, with exploration or without (``loss.explore``).

    Attributes:
        sampler: The policy that makes the support's trajectories; None for the one that the step begins with.
        tape: Trajectories that are kept, by what they were made for: the same ones are then used at any phi, and the
            outer loss is the surrogate whose derivative is the estimate. None makes them again each time.
    """

    sampler: Tensors | None = None
    tape: dict[Key, Trajectories] | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        return (f"the loss of a control task is {judged_by(self.task)}",)

    def held(self) -> Self:
        return self if self._policy_loss.pathwise else replace(self, tape={})

    @property
    def _policy_loss(self) -> PolicyGradient:
        loss = self.slots.loss
        if not isinstance(loss, PolicyGradient):
            raise LearnerError("learner.loss: a control task takes one of policy_gradient, shaped_policy_gradient")
        return loss

    def _act(self, phi: Tensors, theta: Tensors, states: Tensor, index: int) -> Tensor:
        flat = self.forward(phi, theta, states.reshape(-1, states.shape[-1]), index).outputs
        return flat.reshape(*states.shape[:-1], flat.shape[-1])

    def rollout(
        self, phi: Tensors, theta: Tensors, start: Tensor, task: Tensor, noise: Tensor | None, index: int
    ) -> Trajectories:
        """Follow the policy at theta from ``start`` [n, states] in tasks [n, parameters] at inner step ``index``.

        ``noise`` is the exploration, [n, H, actions]; None acts without exploration.
        """
        environment, loss = make_environment(self.task), self._policy_loss
        own = knowledge_of(phi, "loss")
        states, actions, rewards, active, log_p = [environment.begin(start, task)], [], [], [], []
        runs = torch.ones_like(states[0][:, 0])
        for step in range(environment.horizon):
            outputs = self._act(phi, theta, states[-1], index)
            at = None if noise is None else noise[:, step]
            action = action_of(outputs, at, loss.deviation(own), discrete=environment.discrete)
            after = environment.step(states[-1], action, task)
            states.append(after.state)
            actions.append(action)
            rewards.append(after.reward * runs if environment.ends else after.reward)
            active.append(runs)
            if loss.compares:
                log_p.append(loss.log_probabilities(own, outputs, action))
            if environment.ends:
                runs = runs * (~after.ended).to(runs.dtype)
        return Trajectories(
            torch.stack(states, 1),
            torch.stack(actions, 1),
            torch.stack(rewards, 1),
            torch.stack(active, 1) if environment.ends else None,
            torch.stack(log_p, 1) if log_p else None,
        )

    def support_path(self, phi: Tensors, theta: Tensors, episode: Episode, index: int) -> Trajectories:
        """Return the trajectories that inner step ``index`` learns from."""
        noise = noise_of(episode, "loss", index)[EXPLORATION]
        policy = theta if self.sampler is None else theta | self.sampler
        return self._path(EXPLORATION, phi, policy, episode.support_x, episode.support_y, noise, index)

    def query_path(self, phi: Tensors, theta: Tensors, episode: Episode, taken: int) -> Trajectories:
        """Return the trajectories that the policy is judged by after ``taken`` inner steps."""
        noise = noise_of(episode, "loss", taken).get(ASKED)
        return self._path(ASKED, phi, theta, episode.query_x, episode.query_y, noise, max(taken - 1, 0))

    def _path(
        self, which: str, phi: Tensors, theta: Tensors, start: Tensor, task: Tensor, noise: Tensor | None, index: int
    ) -> Trajectories:
        if self._policy_loss.pathwise:
            return self.rollout(phi, theta, start, task, noise, index)
        data = detach(phi), detach(theta)
        if self.tape is None:
            return self.rollout(*data, start, task, noise, index)
        drawn = [] if noise is None else [noise[:1, 0]]
        facts = torch.cat([one.flatten() for one in (start[:1], task, *drawn)])
        key = (which, index, tuple(facts.tolist()))
        if key not in self.tape:
            self.tape[key] = self.rollout(*data, start, task, noise, index)
        return self.tape[key]

    def losses_from(self, phi: Tensors, theta: Tensors, episode: Episode, index: int) -> Callable[[Tensors], Tensor]:
        """Return the surrogate losses as a function of the policy alone, over the trajectories made at theta."""
        path = self.support_path(phi, theta, episode, index)

        def losses_at(moved: Tensors) -> Tensor:
            outputs = self._act(phi, theta | moved, path.states[:, :-1], index)
            return self._policy_loss.policy_losses(knowledge_of(phi, "loss"), outputs, path)

        return losses_at

    def example_gradients(
        self, phi: Tensors, theta: Tensors, fast: Tensors, episode: Episode, index: int
    ) -> ExampleGradients:
        """Differentiate by the policy in the surrogate, and not by the same numbers in the trajectories."""
        apart = {name: value.view_as(value) for name, value in fast.items()}
        return super().example_gradients(phi, theta, apart, episode, index)

    def outer(self, phi: Tensors, theta: Tensors, episode: Episode, taken: int) -> Outer:
        """Evaluate the policy after ``taken`` inner steps by minus its true return, or its mean reward per step."""
        loss, path = self._policy_loss, self.query_path(phi, theta, episode, taken)
        each = path.rewards.mean() if loss.environment.per_step else path.rewards.sum(-1).mean()
        unknown = torch.full_like(path.rewards[0, 0], torch.nan)
        if loss.pathwise or (self.tape is None and not torch.is_grad_enabled()):
            return Outer(-each, unknown, {})
        outputs = self._act(phi, theta, path.states[:, :-1], max(taken - 1, 0))
        surrogate = loss.outer_surrogate(knowledge_of(phi, "loss"), outputs, path)
        if self.tape is not None:
            return Outer(surrogate, unknown, {})
        return Outer(-each + (surrogate - surrogate.detach()), unknown, {})  # the return, with the surrogate's gradient

    def inspect(self, phi: Tensors, episode: Episode, states: Iterator[InnerState]) -> Tensors:
        """Return the queries' trajectories before and after the inner steps."""
        thetas = [state.theta for state in states]
        shown: Tensors = {"parameters": episode.query_y[0]} if self.task.parameters else {}
        for name, taken in ((BEFORE, 0), (AFTER, len(thetas) - 1)):
            path = self.query_path(phi, thetas[taken], episode, taken)
            active = torch.ones_like(path.rewards) if path.active is None else path.active
            shown |= {f"path_{name}": path.states, f"rewards_{name}": path.rewards, f"active_{name}": active}
        return shown

    def problem(
        self, start: Callable[[Tensors], InnerState], episode: Episode, step_weights: tuple[float, ...] | None = None
    ) -> Problem:
        """Pose one episode; an inner step takes all gradients of its trajectories (``epochs``)."""
        once = super().problem(start, episode, step_weights)
        epochs = self._policy_loss.config.epochs

        def update(phi: Tensors, state: InnerState, gradient: Tensors, index: int) -> InnerState:
            same = replace(self, sampler=state.theta)
            after = once.update(phi, state, gradient, index)
            for _ in range(epochs - 1):
                again = same.gradient(phi, after.theta, start(phi).theta, episode, index)
                after = once.update(phi, after, again, index)
            return after

        return once if epochs == 1 else replace(once, update=update)


def _no_losses(outputs: Tensor, targets: Tensor) -> Tensor:
    raise LearnerError("learner.loss: a control task has no targets; use policy_gradient or shaped_policy_gradient")


CONTROL = register_task_kind(
    TaskKind("control", _no_losses, default_loss="policy_gradient", labelled=False, inner_loop=ControlLoop)
)
