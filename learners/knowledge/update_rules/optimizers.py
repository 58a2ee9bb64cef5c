"""Gradient descent with momentum, RMSprop, Adam and AdamW, differentiable in their rates, momenta and decays."""

from dataclasses import dataclass
from typing import Annotated

import torch

from metaloom.learners.domains import Bounds, Learned, Real
from metaloom.learners.knowledge.update_rules.base import OF_LAYERS, RATES, UPDATE_RULES, UpdateConfig, UpdateRule, off
from metaloom.learners.tensors import InnerState, Tensors, add

Momentum = Annotated[float | Learned, Real(0.0, 0.999, per=OF_LAYERS)]
AdaptiveRate = Annotated[float | Learned, Real(1e-5, 0.1, log=True, per=RATES), Bounds(above=0)]
SHARE = Bounds(at_least=0, below=1)  # what a running mean keeps of the past
Decay = Annotated[float | Learned, Real(1e-6, 0.1, log=True, per=OF_LAYERS, positive=True)]


@dataclass(frozen=True)
class SGDConfig(UpdateConfig):
    """Plain, heavy-ball or Nesterov momentum; the decay is the gradient of an L2 penalty (coupled).

    Attributes:
        momentum: Decay of the sum of the gradients; 0 is plain gradient descent.
        nesterov: Whether the momentum is Nesterov's.
        weight_decay: The factor of the weights that is added to the gradient.
    """

    momentum: Momentum = 0.0
    nesterov: bool = False
    weight_decay: Decay = 0.0


@UPDATE_RULES.register("sgd")
class SGD(UpdateRule):
    """b <- m b + g + d theta;  theta <- theta - rate * b  (as torch.optim.SGD, dampening 0)."""

    config: SGDConfig

    def begin(self, theta: Tensors) -> Tensors:
        return {} if off(self.config.momentum) else self.zeros(theta, "momentum")

    def regularization(self, phi: Tensors, theta: Tensors, index: int) -> Tensors:
        if off(self.config.weight_decay):
            return {}
        adapted = self.adapted(theta)
        return {name: self.setting(phi, "weight_decay", name, index) * value for name, value in adapted.items()}

    def step(self, phi: Tensors, state: InnerState, gradient: Tensors, index: int) -> InnerState:
        theta, buffers = dict(state.theta), dict(state.buffers)
        for name, direction in add(gradient, self.regularization(phi, theta, index)).items():
            momentum = self.setting(phi, "momentum", name, index)
            if not off(momentum):
                velocity = momentum * buffers[f"momentum/{name}"] + direction
                buffers[f"momentum/{name}"] = velocity
                direction = direction + momentum * velocity if self.config.nesterov else velocity
            theta[name] = theta[name] - self.rate(phi, name, index) * direction
        return InnerState(theta, buffers)


@dataclass(frozen=True)
class RMSpropConfig(UpdateConfig):
    """torch.optim.RMSprop's own defaults; ``smoothing`` is its alpha.

    Attributes:
        smoothing: Decay of the mean of the squared gradients.
        momentum: Of the steps.
        epsilon: Added to the root in the denominator.
    """

    rate: AdaptiveRate = 0.01
    smoothing: Annotated[float | Learned, Real(0.5, 0.9999, per=OF_LAYERS), SHARE] = 0.99
    momentum: Momentum = 0.0
    epsilon: float = 1e-8


@UPDATE_RULES.register("rmsprop")
class RMSprop(UpdateRule):
    """Tieleman and Hinton, 2012, lecture 6.5, as torch.optim.RMSprop.

    v <- a v + (1 - a) g^2;  b <- m b + g / (sqrt(v) + epsilon);  theta <- theta - rate * b
    """

    config: RMSpropConfig

    def begin(self, theta: Tensors) -> Tensors:
        return self.zeros(theta, *(["second"] if off(self.config.momentum) else ["second", "momentum"]))

    def step(self, phi: Tensors, state: InnerState, gradient: Tensors, index: int) -> InnerState:
        theta, buffers = dict(state.theta), dict(state.buffers)
        for name, slope in gradient.items():
            smoothing, momentum = (self.setting(phi, knob, name, index) for knob in ("smoothing", "momentum"))
            second = smoothing * buffers[f"second/{name}"] + (1 - smoothing) * slope.square()
            buffers[f"second/{name}"] = second
            # as in Adam: the root of a zero moment has no derivative
            direction = slope / (torch.sqrt(second.clamp_min(self.config.epsilon**2)) + self.config.epsilon)
            if not off(momentum):
                direction = momentum * buffers[f"momentum/{name}"] + direction
                buffers[f"momentum/{name}"] = direction
            theta[name] = theta[name] - self.rate(phi, name, index) * direction
        return InnerState(theta, buffers)


@dataclass(frozen=True)
class AdamConfig(UpdateConfig):
    """Adam's own defaults; ``weight_decay`` is decoupled, so that a positive one makes it AdamW.

    Attributes:
        beta1: Decay of the mean of the gradients.
        beta2: Decay of the mean of their squares.
        epsilon: Added to the root in the denominator.
        weight_decay: Decoupled weight decay.
    """

    rate: AdaptiveRate = 1e-3
    beta1: Annotated[float | Learned, Real(0.0, 0.999, per=OF_LAYERS), SHARE] = 0.9
    beta2: Annotated[float | Learned, Real(0.5, 0.9999, per=OF_LAYERS), SHARE] = 0.999
    epsilon: float = 1e-8
    weight_decay: Decay = 0.0


@UPDATE_RULES.register("adam")
class Adam(UpdateRule):
    """Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980, algorithm 1; AdamW where it decays."""

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

    config: AdamWConfig
