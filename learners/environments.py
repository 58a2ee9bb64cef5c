"""Control tasks as functions of state, action and task; those written in torch are differentiable in all three.

A task source of kind control gives starting states in place of labelled examples. Their targets are the numbers that
make this task differ from others, such as a goal: the environment reads them, and no policy sees them.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.registry import Registry


class Step(NamedTuple):
    """One step of n trajectories: the next states [n, states], the rewards [n], and which have ended there [n] bool."""

    state: Tensor
    reward: Tensor
    ended: Tensor


class Environment(ABC):
    """A control task: the numbers in a state and in an action, and the steps of one trajectory.

    Attributes:
        states: Numbers in a state, all of which the policy sees.
        actions: Numbers in an action; where they are discrete, how many there are to choose from.
        horizon: The largest number of steps.
        discrete: Whether an action is one of several, given as a row of zeros with a one.
        differentiable: Whether ``step`` is a function of tensors, through which gradients and ``vmap`` pass.
        ends: Whether a trajectory may end before the horizon.
        per_step: Whether a policy is judged by its mean reward per step, rather than by the sum.
    """

    states: int
    actions: int
    horizon: int
    discrete: bool = False
    differentiable: ClassVar[bool] = True
    ends: bool = False
    per_step: ClassVar[bool] = False

    def begin(self, start: Tensor, task: Tensor) -> Tensor:
        """Return the first states [n, states] of trajectories from ``start`` [n, states], in tasks [n, parameters]."""
        return start

    def goal(self, task: Tensor) -> Tensor | None:
        """Return the place [2] that a task [parameters] is about, where the first two numbers of a state are a place.

        None where they are not.
        """
        return None

    @abstractmethod
    def step(self, state: Tensor, action: Tensor, task: Tensor) -> Step:
        """Take one step from states [n, states] by actions [n, actions] in tasks [n, parameters]."""


ENVIRONMENTS: Registry[type[Environment]] = Registry("environment")


def make_environment(task: TaskShape) -> Environment:
    """Build the environment of a control task; raises LearnerError for a task that has none."""
    if not task.environment:
        raise LearnerError("learner.loss: a policy gradient needs a control task, such as point_mass or navigation")
    return ENVIRONMENTS[task.environment](**task.environment_settings)


def judged_by(task: TaskShape) -> str:
    """Say what the loss of a control task is."""
    if make_environment(task).per_step:
        return "minus the mean reward per step"
    return "minus the return, the sum of a trajectory's rewards"


@ENVIRONMENTS.register("point_mass")
class PointMass(Environment):
    """A mass in the plane that is to reach the origin and stay: state (position, velocity), action a force.

        v' = 0.9 v + 0.15 tanh(force),    p' = p + v',    reward = exp(-|p'|^2 / (2 * 0.2^2))

    At its start, at distance about 1, the reward is 4e-6: it hardly shows which way to go.
    """

    states = 4
    actions = 2
    horizon = 15
    per_step = True
    friction = 0.9
    force = 0.15
    width = 0.2

    def goal(self, task: Tensor) -> Tensor:
        return torch.zeros(2)

    def step(self, state: Tensor, action: Tensor, task: Tensor) -> Step:
        position, velocity = state[..., :2], state[..., 2:]
        velocity = self.friction * velocity + self.force * torch.tanh(action)
        position = position + velocity
        reward = torch.exp(-position.square().sum(-1) / (2 * self.width**2))
        return Step(torch.cat([position, velocity], -1), reward, torch.zeros_like(reward, dtype=torch.bool))


@ENVIRONMENTS.register("navigation")
class Navigation(Environment):
    """A point in the plane that is to reach a goal that it does not see: state its position, action a velocity.

    Finn, Abbeel and Levine, 2017, https://arxiv.org/abs/1703.03400, section 5.3:

        p' = p + speed * clip(action, -1, 1),    reward = -|p' - goal|^2

    An action is in units of the largest velocity. A trajectory ends within ``reach`` of the goal, or at the horizon.
    """

    states = 2
    actions = 2
    ends = True

    def __init__(self, horizon: int = 100, speed: float = 0.1, reach: float = 0.01) -> None:
        self.horizon, self.speed, self.reach = horizon, speed, reach

    def goal(self, task: Tensor) -> Tensor:
        return task

    def step(self, state: Tensor, action: Tensor, task: Tensor) -> Step:
        position = state + self.speed * action.clamp(-1, 1)
        squared = (position - task).square().sum(-1)
        return Step(position, -squared, squared < self.reach**2)
