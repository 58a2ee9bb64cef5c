r"""Policy gradients, whose reward may be shaped by a learned potential.

Williams, 1992 (REINFORCE): with actions a_t = mu_theta(s_t) + sigma e_t drawn before the inner loop begins,

    l_i(theta) = -(1 / H) sum_t log pi_theta(a_t | s_t) A_t,    A_t = sum_{k >= t} gamma^(k - t) r_k - baseline_t

with trajectory i made by the policy itself, whose states, actions and rewards the step takes as given, and the
baseline the mean over the trajectories. Ng, Harada and Russell, 1999, theorem 1: adding

    F(s, s') = gamma Phi(s') - Phi(s)

to the reward does not change the best policy, for any potential Phi that is 0 where a trajectory ends; with a good one
the next steps carry information that otherwise only the end has. This Phi is not fixed to 0 after the last of H steps:
gamma^H Phi(s_H) remains, a learned reward for the final state.

Phi is a network that the hypergradient of the true return after the inner loop trains (as the learned rewards of
Bechtle et al., 2021, https://arxiv.org/abs/1906.05374, section 4.3, and of Zheng, Oh and Singh, 2018,
https://arxiv.org/abs/1804.06459). The hypergradient passes through the trajectories too, which are functions of theta
by the noise and the differentiable task: it is exact. Costs as many sequential policy evaluations per inner step as the
horizon has steps.
"""

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Bounds, Int, Learned, Real
from metaloom.learners.environments import ENVIRONMENTS, Environment
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.loss import LOSSES, Loss
from metaloom.learners.networks.base import linear_layers
from metaloom.learners.tensors import Tensors


class Trajectories(NamedTuple):
    """n trajectories of H steps."""

    states: Tensor  # [n, H + 1, states], the start first
    actions: Tensor  # [n, H, actions]
    rewards: Tensor  # [n, H], true ones


@dataclass(frozen=True)
class PolicyGradientConfig:
    """How the policy explores, and how it values later rewards.

    Attributes:
        deviation: Standard deviation of the actions about the policy's mean.
        discount: gamma.
    """

    deviation: Annotated[float | Learned, Real(0.01, 2.0, log=True, positive=True), Bounds(above=0)] = 0.5
    discount: Annotated[float, Real(0.5, 1.0, per=()), Bounds(at_least=0, at_most=1)] = 0.95


@LOSSES.register("policy_gradient")
class PolicyGradient(Loss):
    """REINFORCE with a time-dependent baseline, from the true reward."""

    config: PolicyGradientConfig
    serves = frozenset({"control"})
    random = True

    def __init__(self, config: object, task: TaskShape) -> None:
        super().__init__(config, task)
        self.environment: Environment | None = ENVIRONMENTS[task.environment]() if task.environment else None

    def draw_noise(self, examples: Tensor, steps: int, generator: Generator, *, training: bool) -> Tensors:
        """Return the actions' exploration, in standard deviations: [steps + 1, n, H, actions]."""
        environment = self._environment()
        shape = (steps + 1, len(examples), environment.horizon, environment.actions)
        return {"exploration": torch.randn(shape, generator=generator, device=generator.device)}

    def _environment(self) -> Environment:
        if self.environment is None:
            raise LearnerError("learner.loss: a policy gradient needs a control task, such as point_mass")
        return self.environment

    def shaped(self, phi: Tensors, path: Trajectories) -> Tensor:
        """Return the rewards that the policy learns from, [n, H]."""
        return path.rewards

    def advantages(self, phi: Tensors, path: Trajectories) -> Tensor:
        """Return A_t, [n, H]."""
        rewards = self.shaped(phi, path)
        steps = torch.arange(rewards.shape[1], device=rewards.device)
        later = steps[None, :] - steps[:, None]
        powers = torch.where(later >= 0, self.config.discount ** later.clamp_min(0).to(rewards.dtype), 0.0)
        to_go = rewards @ powers.T.to(rewards)
        return to_go - to_go.mean(0)

    def policy_losses(self, phi: Tensors, means: Tensor, path: Trajectories) -> Tensor:
        """Return the surrogate loss of each trajectory, [n].

        ``means`` [n, H, actions] are the policy's mean actions in all states of the path but the last.
        """
        unlikely = 0.5 * ((path.actions - means) / self.knob(phi, "deviation")).square().sum(-1)
        return (unlikely * self.advantages(phi, path)).mean(-1)

    def losses(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the surrogate of one-step trajectories, from mean actions [n, actions].

        ``targets`` [n, states + actions + states + 1] are state, action, next state and true reward.
        """
        environment = self._environment()
        widths = [environment.states, environment.actions, environment.states, 1]
        state, action, after, reward = torch.split(targets, widths, -1)
        path = Trajectories(torch.stack([state, after], 1), action[:, None], reward)
        return self.policy_losses(phi, outputs[:, None], path)


@dataclass(frozen=True)
class ShapedPolicyGradientConfig(PolicyGradientConfig):
    """The potential network, beside the policy's settings.

    Attributes:
        hidden: Width of its two hidden layers.
        scale: What its output is multiplied by.
    """

    hidden: Annotated[int, Int(4, 256, log=True)] = 32
    scale: Annotated[float, Real(0.01, 100.0, log=True, per=())] = 1.0


@LOSSES.register("shaped_policy_gradient")
class ShapedPolicyGradient(PolicyGradient):
    """REINFORCE from the true reward plus gamma Phi(s') - Phi(s), with Phi learned."""

    config: ShapedPolicyGradientConfig
    learns = True

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        """Draw the potential network; it starts small, so that learning starts near the true reward."""
        widths = [self._environment().states, self.config.hidden, self.config.hidden, 1]
        net = linear_layers("potential", widths, generator)
        net["potential2.weight"] = 0.1 * net["potential2.weight"]
        del net["potential2.bias"]  # a constant potential shapes nothing but discounting
        return net | super().init(theta, generator)

    def potential(self, phi: Tensors, states: Tensor) -> Tensor:
        """Map states [..., states] to their potential [...]."""
        hidden = torch.tanh(F.linear(states, phi["potential0.weight"], phi["potential0.bias"]))
        hidden = torch.tanh(F.linear(hidden, phi["potential1.weight"], phi["potential1.bias"]))
        scale = self.config.scale * math.sqrt(self.config.hidden)
        return scale * F.linear(hidden, phi["potential2.weight"]).squeeze(-1)

    def shaped(self, phi: Tensors, path: Trajectories) -> Tensor:
        value = self.potential(phi, path.states)
        return path.rewards + self.config.discount * value[:, 1:] - value[:, :-1]
