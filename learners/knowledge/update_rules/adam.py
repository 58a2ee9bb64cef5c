"""Adam and AdamW, differentiable in their rates, betas and decay."""

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
class AdamConfig(UpdateConfig):
    """Adam's own defaults; ``weight_decay`` is decoupled, so that a positive one makes it AdamW.

    Attributes:
        beta1: Decay of the mean of the gradients.
        beta2: Decay of the mean of their squares.
        epsilon: Added to the root in the denominator.
        weight_decay: Decoupled weight decay.
    """

    rate: Annotated[float | Learned, Real(1e-5, 0.1, log=True, per=GRANULARITIES)] = 1e-3
    beta1: Annotated[float | Learned, Real(0.0, 0.999, per=OF_LAYERS)] = 0.9
    beta2: Annotated[float | Learned, Real(0.5, 0.9999, per=OF_LAYERS)] = 0.999
    epsilon: float = 1e-8
    weight_decay: Annotated[float | Learned, Real(1e-6, 0.1, log=True, per=OF_LAYERS, positive=True)] = 0.0


@UPDATE_RULES.register("adam")
class Adam(UpdateRule):
    """Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980, algorithm 1; AdamW where it decays."""

    Config = AdamConfig
    config: AdamConfig

    def begin(self, theta: Tensors) -> Tensors:
        zeros = self.zeros(theta, "first", "second")
        return zeros | {"steps": torch.zeros((), dtype=next(iter(zeros.values())).dtype)}

    def step(self, phi: Tensors, state: InnerState, gradient: Tensors, index: int) -> InnerState:
        theta, buffers = dict(state.theta), dict(state.buffers)
        count = buffers["steps"] + 1
        buffers["steps"] = count
        for name, slope in gradient.items():
            rate = self.rate(phi, name, index)
            beta1, beta2, decay = (self.setting(phi, knob, name, index) for knob in ("beta1", "beta2", "weight_decay"))
            first = beta1 * buffers[f"first/{name}"] + (1 - beta1) * slope
            second = beta2 * buffers[f"second/{name}"] + (1 - beta2) * slope.square()
            buffers[f"first/{name}"], buffers[f"second/{name}"] = first, second
            # the root's gradient is infinite at a zero moment, which a dead unit has: keep it above epsilon squared
            root = torch.sqrt((second / (1 - beta2**count)).clamp_min(self.config.epsilon**2))
            kept = theta[name] if off(decay) else theta[name] * (1 - rate * decay)
            theta[name] = kept - rate * (first / (1 - beta1**count)) / (root + self.config.epsilon)
        return InnerState(theta, buffers)


@dataclass(frozen=True)
class AdamWConfig(AdamConfig):
    """Adam whose parameters decay by default."""

    weight_decay: Annotated[float | Learned, Real(1e-6, 1.0, log=True, per=OF_LAYERS, positive=True)] = 0.01


@UPDATE_RULES.register("adamw")
class AdamW(Adam):
    """Adam with decoupled decay: Loshchilov and Hutter, 2019, https://arxiv.org/abs/1711.05101, algorithm 2.

    theta <- (1 - rate * decay) theta - rate * m^ / (sqrt(v^) + epsilon)
    """

    Config = AdamWConfig
    config: AdamWConfig
