r"""Policy gradients, whose reward may be shaped by a learned potential.

Williams, 1992 (REINFORCE): with the actions' noise drawn before the inner loop begins,

    l_i(theta) = -(1 / H) sum_t log pi_theta(a_t | s_t) A_t

with trajectory i made by the policy itself, whose states, actions and rewards the step takes as given, and the
advantages A_t of ``trajectories.py``. How the hypergradient sees that the trajectories are the policy's own is a
setting, ``differentiate``:

* ``pathwise``: they are functions of theta by the noise and the differentiable task. Exact for a given noise.
* ``score``: they are data (Finn, Abbeel and Levine, 2017, https://arxiv.org/abs/1703.03400, algorithm 3). The outer
  gradient is REINFORCE's over trajectories after adaptation, and the inner step's Jacobian is that of l_i alone.
* ``low_variance``: likewise, with rho_t A_t in place of log pi_t A_t, rho_t = pi_theta(a_t | s_t) / pi_old(a_t | s_t)
  (Rothfuss et al., 2019, ProMP, https://arxiv.org/abs/1810.06784, section 5).
* ``dice``: likewise, with (prod_{k <= t} rho_k - prod_{k < t} rho_k) A_t: the inner step's Jacobian is then right in
  expectation (Foerster et al., 2018, https://arxiv.org/abs/1802.05098; with advantages Farquhar, Whiteson and
  Foerster, 2019). What the chance of the inner trajectories adds, which falls with their number, is left out.

All four have the same inner gradient. An inner step may take several gradients of one set of trajectories
(``epochs``), then with rho_t, which ``clip`` bounds (Schulman et al., 2017, https://arxiv.org/abs/1707.06347,
equation 7): min(rho_t A_t, clip(rho_t, 1 - clip, 1 + clip) A_t).

Ng, Harada and Russell, 1999, theorem 1: adding F(s, s') = gamma Phi(s') - Phi(s) to the reward does not change the
best policy, for any potential Phi that is 0 where a trajectory ends; with a good one the next steps carry information
that otherwise only the end has. This Phi is not fixed to 0 after the last of H steps: gamma^H Phi(s_H) remains, a
learned reward for the final state. Phi is a network that the hypergradient of the true return after the inner loop
trains (as the learned rewards of Bechtle et al., 2021, https://arxiv.org/abs/1906.05374, section 4.3, and of Zheng, Oh
and Singh, 2018, https://arxiv.org/abs/1804.06459).

Costs as many sequential policy evaluations per inner step as the horizon has steps.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Added, Bounds, Int, Learned, Real
from metaloom.learners.environments import Environment, make_environment
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.loss import LOSSES, Loss
from metaloom.learners.knowledge.trajectories import (
    Trajectories,
    linear_baseline,
    log_probability,
    mean_baseline,
    returns_to_go,
    standardized,
)
from metaloom.learners.networks.base import linear_layers
from metaloom.learners.tensors import Tensors

PATHWISE, SCORE, LOW_VARIANCE, DICE = "pathwise", "score", "low_variance", "dice"
TRACED_HORIZON = 20  # of one step each; 100 take a minute to trace, and then half of a second's part an outer step
EXPLORATION, ASKED = "exploration", "asked"  # the noise of the support's trajectories, and of the queries'


@dataclass(frozen=True)
class PolicyGradientConfig:
    """How the policy explores, and how it values later rewards.

    Attributes:
        deviation: Standard deviation of continuous actions about the policy's mean.
        discount: gamma.
        baseline: What is taken from the return: its mean over the trajectories, or a linear fit by state and time.
        ridge: Penalty of the linear fit.
        standardize: Whether the advantages of an inner step have mean 0 and deviation 1.
        differentiate: What the hypergradient takes the trajectories for; null is ``pathwise`` where that is possible,
            else ``score``.
        explore: Whether the queries' trajectories explore too; null where they are data, which could not teach
            otherwise.
        epochs: Gradients that an inner step takes of one set of trajectories.
        clip: How far a ratio of probabilities may be from 1 and still count; null does not clip.
    """

    deviation: Annotated[float | Learned, Real(0.01, 2.0, log=True, positive=True), Bounds(above=0)] = 0.5
    discount: Annotated[float, Real(0.5, 1.0, per=()), Bounds(at_least=0, at_most=1)] = 0.95
    baseline: Annotated[Literal["mean", "linear"], Added()] = "mean"
    ridge: Annotated[float, Real(1e-8, 1.0, log=True, per=()), Bounds(above=0), Added()] = 1e-5
    standardize: Annotated[bool, Added()] = False
    differentiate: Annotated[Literal["pathwise", "score", "low_variance", "dice"] | None, Added()] = None
    explore: Annotated[bool | None, Added()] = None
    epochs: Annotated[int, Int(1, 20), Bounds(at_least=1), Added()] = 1
    clip: Annotated[float | None, Real(0.01, 1.0, log=True, per=()), Bounds(above=0), Added()] = None


@LOSSES.register("policy_gradient")
class PolicyGradient(Loss):
    """REINFORCE with a baseline, from the true reward."""

    config: PolicyGradientConfig
    serves = frozenset({"control"})
    random = True

    def __init__(self, config: object, task: TaskShape) -> None:
        super().__init__(config, task)
        self.built: Environment | None = make_environment(task) if task.environment else None
        if self.built is not None and self.config.differentiate == PATHWISE and not self._has_paths(self.built):
            raise LearnerError(
                f"learner.loss.differentiate: {PATHWISE} needs steps that are differentiable in continuous actions, "
                f"which {task.environment} has not; use one of {SCORE}, {LOW_VARIANCE}, {DICE}"
            )
        if self.built is not None and self.config.explore is False and not self.pathwise:
            raise LearnerError(
                f"learner.loss.explore: {self.mode} learns from the queries' exploration; leave it out, or use "
                f"differentiate: {PATHWISE} where steps are differentiable"
            )

    @staticmethod
    def _has_paths(environment: Environment) -> bool:
        return environment.differentiable and not environment.discrete

    @property
    def environment(self) -> Environment:
        """The control task; raises LearnerError if there is none."""
        return make_environment(self.task) if self.built is None else self.built

    @property
    def batchable(self) -> bool:  # type: ignore[override]
        return self.built is None or self.built.differentiable

    @property
    def traceable(self) -> bool:  # type: ignore[override]
        return self.pathwise and self.environment.horizon <= TRACED_HORIZON

    @property
    def mode(self) -> str:
        """What the hypergradient takes the trajectories for."""
        return self.config.differentiate or (PATHWISE if self._has_paths(self.environment) else SCORE)

    @property
    def pathwise(self) -> bool:
        """Whether trajectories are functions of the policy, rather than data."""
        return self.mode == PATHWISE

    def draw_noise(self, examples: Tensor, steps: int, generator: Generator, *, training: bool) -> Tensors:
        """Return the exploration of the support's trajectories: [steps + 1, n, H, actions]."""
        return {EXPLORATION: self._noise(len(examples), steps, generator)}

    def draw_query_noise(self, queries: Tensor, steps: int, generator: Generator) -> Tensors:
        """Return the exploration of the queries' trajectories, where they explore: [steps + 1, queries, H, actions]."""
        explores = not self.pathwise if self.config.explore is None else self.config.explore
        return {ASKED: self._noise(len(queries), steps, generator)} if explores else {}

    def _noise(self, trajectories: int, steps: int, generator: Generator) -> Tensor:
        """Draw from N(0, 1), or for discrete actions from Gumbel's distribution."""
        environment = self.environment
        shape = (steps + 1, trajectories, environment.horizon, environment.actions)
        if environment.discrete:
            return -torch.empty(shape, device=generator.device).exponential_(generator=generator).log()
        return torch.randn(shape, generator=generator, device=generator.device)

    def deviation(self, phi: Tensors) -> float | Tensor:
        """Return the standard deviation of continuous actions."""
        return self.knob(phi, "deviation")

    def log_probabilities(self, phi: Tensors, outputs: Tensor, actions: Tensor) -> Tensor:
        """Return those of actions [..., actions] under a policy with these outputs, [...]."""
        return log_probability(outputs, actions, self.deviation(phi), discrete=self.environment.discrete)

    def shaped(self, phi: Tensors, path: Trajectories) -> Tensor:
        """Return the rewards that the policy learns from, [n, H]."""
        return path.rewards

    def advantages(self, rewards: Tensor, path: Trajectories) -> Tensor:
        """Return A_t of rewards [n, H], [n, H]."""
        to_go, config = returns_to_go(rewards, self.config.discount), self.config
        if config.baseline == "linear":
            value = to_go - linear_baseline(path, to_go, config.ridge)
        else:
            value = to_go - mean_baseline(to_go, path.active)
        return standardized(value, path.active) if config.standardize else value

    def policy_losses(self, phi: Tensors, outputs: Tensor, path: Trajectories) -> Tensor:
        """Return the surrogate loss of each trajectory, [n].

        ``outputs`` [n, H, actions] are the policy's, in all states of the path but the last.
        """
        log_p = self.log_probabilities(phi, outputs, path.actions)
        advantages = self.advantages(self.shaped(phi, path), path)
        if path.log_probabilities is None:
            return path.mean_of(-log_p * advantages)
        change = log_p - path.log_probabilities
        if self.mode == DICE and self.config.epochs == 1:
            until = change.cumsum(-1)
            before = torch.cat([torch.zeros_like(until[:, :1]), until[:, :-1]], -1)
            return path.mean_of(-(until.exp() - before.exp()) * advantages)
        gain, clip = change.exp() * advantages, self.config.clip
        if clip is not None:
            gain = torch.minimum(gain, change.exp().clamp(1 - clip, 1 + clip) * advantages)
        return path.mean_of(-gain)

    @property
    def compares(self) -> bool:
        """Whether the surrogate compares with the policy that took the actions."""
        return self.mode in (LOW_VARIANCE, DICE) or self.config.epochs > 1 or self.config.clip is not None

    def outer_surrogate(self, phi: Tensors, outputs: Tensor, path: Trajectories) -> Tensor:
        """Return the loss whose gradient is the score function's of the judged return, [].

        Its advantages are of the true reward, and not standardized.
        """
        to_go = returns_to_go(path.rewards, self.config.discount)
        linear = self.config.baseline == "linear"
        known = linear_baseline(path, to_go, self.config.ridge) if linear else mean_baseline(to_go, path.active)
        scores = path.mean_of(-self.log_probabilities(phi, outputs, path.actions) * (to_go - known)).mean()
        return scores if self.environment.per_step else scores * self.environment.horizon

    def losses(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the surrogate of one-step trajectories, from the policy's outputs [n, actions].

        ``targets`` [n, states + actions + states + 1] are state, action, next state and true reward.
        """
        environment = self.environment
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
        widths = [self.environment.states, self.config.hidden, self.config.hidden, 1]
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
