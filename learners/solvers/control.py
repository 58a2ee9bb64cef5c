"""The inner loop of a control task: trajectories in place of labelled examples, the true return in place of a loss."""

from collections.abc import Callable

import torch
from torch import Tensor

from metaloom.learners.environments import ENVIRONMENTS
from metaloom.learners.episode import Episode
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import Outer
from metaloom.learners.knowledge.policy_gradient import PolicyGradient, Trajectories
from metaloom.learners.solvers.example_gradients import ExampleGradients
from metaloom.learners.solvers.inner_loop import InnerLoop
from metaloom.learners.solvers.slots import noise_of
from metaloom.learners.state import knowledge_of
from metaloom.learners.task_kinds import TaskKind, register_task_kind
from metaloom.learners.tensors import Tensors


class ControlLoop(InnerLoop):
    """Support and query are starting states; the network is the policy's mean action.

    An inner step takes the trajectories of the policy at theta as given, and moves theta by the surrogate loss of
    them. The query set is judged by minus the true reward per step of the policy without exploration.
    """

    @property
    def _policy_loss(self) -> PolicyGradient:
        loss = self.slots.loss
        if not isinstance(loss, PolicyGradient):
            raise LearnerError("learner.loss: a control task takes one of policy_gradient, shaped_policy_gradient")
        return loss

    def _act(self, phi: Tensors, theta: Tensors, states: Tensor, index: int) -> Tensor:
        flat = self.forward(phi, theta, states.reshape(-1, states.shape[-1]), index).outputs
        return flat.reshape(*states.shape[:-1], flat.shape[-1])

    def rollout(self, phi: Tensors, theta: Tensors, start: Tensor, noise: Tensor | None, index: int) -> Trajectories:
        """Follow the policy at theta from ``start`` [n, states] at inner step ``index``.

        ``noise`` is the exploration, [n, H, actions] in standard deviations; None acts without exploration.
        """
        environment = ENVIRONMENTS[self.task.environment]()
        deviation = self._policy_loss.knob(knowledge_of(phi, "loss"), "deviation")
        states, actions, rewards = [start], [], []
        for step in range(environment.horizon):
            action = self._act(phi, theta, states[-1], index)
            if noise is not None:
                action = action + deviation * noise[:, step]
            after, reward = environment.step(states[-1], action)
            states.append(after)
            actions.append(action)
            rewards.append(reward)
        return Trajectories(torch.stack(states, 1), torch.stack(actions, 1), torch.stack(rewards, 1))

    def losses_from(self, phi: Tensors, theta: Tensors, episode: Episode, index: int) -> Callable[[Tensors], Tensor]:
        """Return the surrogate losses as a function of the policy alone, over the trajectories made at theta."""
        noise = noise_of(episode, "loss", index)["exploration"]
        path = self.rollout(phi, theta, episode.support_x, noise, index)

        def losses_at(moved: Tensors) -> Tensor:
            means = self._act(phi, theta | moved, path.states[:, :-1], index)
            return self._policy_loss.policy_losses(knowledge_of(phi, "loss"), means, path)

        return losses_at

    def example_gradients(
        self, phi: Tensors, theta: Tensors, fast: Tensors, episode: Episode, index: int
    ) -> ExampleGradients:
        """Differentiate by the policy in the surrogate, and not by the same numbers in the trajectories."""
        apart = {name: value.view_as(value) for name, value in fast.items()}
        return super().example_gradients(phi, theta, apart, episode, index)

    def outer(self, phi: Tensors, theta: Tensors, episode: Episode, taken: int) -> Outer:
        """Evaluate the policy after ``taken`` inner steps by minus its mean true reward per step."""
        path = self.rollout(phi, theta, episode.query_x, None, max(taken - 1, 0))
        return Outer(-path.rewards.mean(), torch.full_like(path.rewards[0, 0], torch.nan), {})


def _no_losses(outputs: Tensor, targets: Tensor) -> Tensor:
    raise LearnerError("learner.loss: a control task has no targets; use policy_gradient or shaped_policy_gradient")


CONTROL = register_task_kind(
    TaskKind("control", _no_losses, default_loss="policy_gradient", labelled=False, inner_loop=ControlLoop)
)
