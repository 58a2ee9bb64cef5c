"""RMSprop, differentiable in its rate, its smoothing and its momentum."""

from dataclasses import dataclass
from typing import Annotated

import torch

from metaloom.learners.domains import Learned, Real
from metaloom.learners.knowledge.update_rules.base import (
    GRANULARITIES,
    OF_LAYERS,
    UPDATE_RULES,
    UpdateConfig,
    UpdateRule,
    off,
)
from metaloom.learners.tensors import InnerState, Tensors


@dataclass(frozen=True)
class RMSpropConfig(UpdateConfig):
    """torch.optim.RMSprop's own defaults; ``smoothing`` is its alpha.

    Attributes:
        smoothing: Decay of the mean of the squared gradients.
        momentum: Of the steps.
        epsilon: Added to the root in the denominator.
    """

    rate: Annotated[float | Learned, Real(1e-5, 0.1, log=True, per=GRANULARITIES)] = 0.01
    smoothing: Annotated[float | Learned, Real(0.5, 0.9999, per=OF_LAYERS)] = 0.99
    momentum: Annotated[float | Learned, Real(0.0, 0.999, per=OF_LAYERS)] = 0.0
    epsilon: float = 1e-8


@UPDATE_RULES.register("rmsprop")
class RMSprop(UpdateRule):
    """Tieleman and Hinton, 2012, lecture 6.5, as torch.optim.RMSprop.

    v <- a v + (1 - a) g^2;  b <- m b + g / (sqrt(v) + epsilon);  theta <- theta - rate * b
    """

    Config = RMSpropConfig
    config: RMSpropConfig

    def begin(self, theta: Tensors) -> Tensors:
        return self.zeros(theta, *(["second"] if off(self.config.momentum) else ["second", "momentum"]))

    def step(self, phi: Tensors, state: InnerState, gradient: Tensors, index: int) -> InnerState:
        theta, buffers = dict(state.theta), dict(state.buffers)
        for name, slope in gradient.items():
            smoothing, momentum = (self.setting(phi, knob, name, index) for knob in ("smoothing", "momentum"))
            second = smoothing * buffers[f"second/{name}"] + (1 - smoothing) * slope.square()
            buffers[f"second/{name}"] = second
            # as in Adam: a zero moment's root has no derivative
            direction = slope / (torch.sqrt(second.clamp_min(self.config.epsilon**2)) + self.config.epsilon)
            if not off(momentum):
                direction = momentum * buffers[f"momentum/{name}"] + direction
                buffers[f"momentum/{name}"] = direction
            theta[name] = theta[name] - self.rate(phi, name, index) * direction
        return InnerState(theta, buffers)
