"""Small control tasks as pure functions, differentiable in state and action, so that a hypergradient may pass through.

A task source of kind control gives starting states in place of labelled examples.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from metaloom.learners.registry import Registry


class Environment(ABC):
    """A deterministic control task: the numbers in a state and in an action, and the steps of one trajectory."""

    states: ClassVar[int]
    actions: ClassVar[int]
    horizon: ClassVar[int]

    @abstractmethod
    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next state [n, states] and the true reward there [n]."""


ENVIRONMENTS: Registry[type[Environment]] = Registry("environment")


@ENVIRONMENTS.register("point_mass")
class PointMass(Environment):
    """A mass in the plane that is to reach the origin and stay: state (position, velocity), action a force.

        v' = 0.9 v + 0.15 tanh(force),    p' = p + v',    reward = exp(-|p'|^2 / (2 * 0.2^2))

    At its start, at distance about 1, the reward is 4e-6: it hardly shows which way to go.
    """

    states = 4
    actions = 2
    horizon = 15
    friction = 0.9
    force = 0.15
    width = 0.2

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        position, velocity = state[..., :2], state[..., 2:]
        velocity = self.friction * velocity + self.force * torch.tanh(action)
        position = position + velocity
        reward = torch.exp(-position.square().sum(-1) / (2 * self.width**2))
        return torch.cat([position, velocity], -1), reward
