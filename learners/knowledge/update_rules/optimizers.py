"""Gradient descent with momentum, AdaGrad, RMSprop, Adam and AdamW, differentiable in rates, momenta and decays."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import torch

from metaloom.learners.domains import Added, Bounds, Learned, Real
from metaloom.learners.knowledge.update_rules.base import (
    OF_LAYERS,
    RATES,
    UPDATE_RULES,
    LayeredConfig,
    UpdateRule,
    off,
)
from metaloom.learners.tensors import InnerState, Tensors, add

Momentum = Annotated[float | Learned, Real(0.0, 0.999, per=OF_LAYERS)]
AdaptiveRate = Annotated[float | Learned, Real(1e-5, 0.1, log=True, per=RATES), Bounds(above=0)]
SHARE = Bounds(at_least=0, below=1)  # what a running mean keeps of the past
Decay = Annotated[float | Learned, Real(1e-6, 0.1, log=True, per=OF_LAYERS, positive=True)]


@dataclass(frozen=True)
class SGDConfig(LayeredConfig):
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
        return self.decay(phi, theta, index)

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
class AdaGradConfig(LayeredConfig):
    """torch.optim.Adagrad's own defaults; the decay of the weights is coupled (L2).

    Attributes:
        rate_decay: The rate of the t-th step is rate / (1 + (t - 1) * this).
        initial_sum: The sum of the squared gradients before the first step.
        epsilon: Added to the root in the denominator.
        weight_decay: The factor of the weights that is added to the gradient.
    """

    rate: AdaptiveRate = 0.01
    rate_decay: Annotated[float, Real(0.0, 0.01, per=())] = 0.0
    initial_sum: Annotated[float, Real(0.0, 10.0, per=())] = 0.0
    epsilon: Annotated[float, Bounds(above=0)] = 1e-10
    weight_decay: Decay = 0.0


@UPDATE_RULES.register("adagrad")
class AdaGrad(UpdateRule):
    """Duchi, Hazan and Singer, 2011, https://jmlr.org/papers/v12/duchi11a.html, figure 1, as torch.optim.Adagrad.

    s <- s + g^2;  theta <- theta - rate * g / (sqrt(s) + epsilon)
    """

    config: AdaGradConfig

    def begin(self, theta: Tensors) -> Tensors:
        sums = {name: zero + self.config.initial_sum for name, zero in self.zeros(theta, "sum").items()}
        return sums | {"steps": torch.zeros((), dtype=next(iter(theta.values())).dtype)}

    def regularization(self, phi: Tensors, theta: Tensors, index: int) -> Tensors:
        return self.decay(phi, theta, index)

    def step(self, phi: Tensors, state: InnerState, gradient: Tensors, index: int) -> InnerState:
        theta, buffers = dict(state.theta), dict(state.buffers)
        slowed = 1 + buffers["steps"] * self.config.rate_decay
        buffers["steps"] = buffers["steps"] + 1
        for name, slope in add(gradient, self.regularization(phi, theta, index)).items():
            total = buffers[f"sum/{name}"] + slope.square()
            buffers[f"sum/{name}"] = total
            # as in Adam: the root of a zero sum has no derivative
            root = torch.sqrt(total.clamp_min(self.config.epsilon**2)) + self.config.epsilon
            theta[name] = theta[name] - self.rate(phi, name, index) / slowed * slope / root
        return InnerState(theta, buffers)


@dataclass(frozen=True)
class RMSpropConfig(LayeredConfig):
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
class MomentsConfig(LayeredConfig):
    """What Adam and AdamW share: Adam's own defaults.

    Attributes:
        beta1: Decay of the mean of the gradients.
        beta2: Decay of the mean of their squares.
        epsilon: Added to the root in the denominator.
    """

    rate: AdaptiveRate = 1e-3
    beta1: Annotated[float | Learned, Real(0.0, 0.999, per=OF_LAYERS), SHARE] = 0.9
    beta2: Annotated[float | Learned, Real(0.5, 0.9999, per=OF_LAYERS), SHARE] = 0.999
    epsilon: float = 1e-8


@dataclass(frozen=True)
class AdamConfig(MomentsConfig):
    """Adam's own defaults; the decay of the weights is coupled (L2), as in torch.optim.Adam.

    Attributes:
        weight_decay: The factor of the weights that is added to the gradient.
        decoupled_weight_decay: Whether the weights decay beside the gradient instead, as in AdamW.
    """

    weight_decay: Decay = 0.0
    decoupled_weight_decay: Annotated[bool, Added()] = False


class Moments(UpdateRule):
    """The step of Adam and AdamW.

    Class attributes:
        config: Has a weight decay beside what both share.
    """

    config: Any

    @property
    def decoupled(self) -> bool:
        """Whether the weights decay beside the gradient."""
        return True

    def regularization(self, phi: Tensors, theta: Tensors, index: int) -> Tensors:
        return {} if self.decoupled else self.decay(phi, theta, index)

    def begin(self, theta: Tensors) -> Tensors:
        zeros = self.zeros(theta, "first", "second")
        return zeros | {"steps": torch.zeros((), dtype=next(iter(zeros.values())).dtype)}

    def step(self, phi: Tensors, state: InnerState, gradient: Tensors, index: int) -> InnerState:
        theta, buffers = dict(state.theta), dict(state.buffers)
        count = buffers["steps"] + 1
        buffers["steps"] = count
        for name, slope in add(gradient, self.regularization(phi, theta, index)).items():
            rate = self.rate(phi, name, index)
            beta1, beta2 = (self.setting(phi, knob, name, index) for knob in ("beta1", "beta2"))
            decay = self.setting(phi, "weight_decay", name, index) if self.decoupled else 0.0
            first = beta1 * buffers[f"first/{name}"] + (1 - beta1) * slope
            second = beta2 * buffers[f"second/{name}"] + (1 - beta2) * slope.square()
            buffers[f"first/{name}"], buffers[f"second/{name}"] = first, second
            # the root's gradient is infinite at a zero moment, which a dead unit has: keep it above epsilon squared
            root = torch.sqrt((second / (1 - beta2**count)).clamp_min(self.config.epsilon**2))
            kept = theta[name] if off(decay) else theta[name] * (1 - rate * decay)
            theta[name] = kept - rate * (first / (1 - beta1**count)) / (root + self.config.epsilon)
        return InnerState(theta, buffers)


@UPDATE_RULES.register("adam")
class Adam(Moments):
    """Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980, algorithm 1.

    m <- b1 m + (1 - b1) (g + d theta);  v <- b2 v + (1 - b2) (g + d theta)^2
    theta <- theta - rate * m^ / (sqrt(v^) + epsilon)
    """

    config: AdamConfig
    before: ClassVar[Mapping[str, Any]] = MappingProxyType({"decoupled_weight_decay": True})

    @property
    def decoupled(self) -> bool:
        return bool(self.config.decoupled_weight_decay)


@dataclass(frozen=True)
class AdamWConfig(MomentsConfig):
    """Adam whose parameters decay by default."""

    weight_decay: Annotated[float | Learned, Real(1e-6, 1.0, log=True, per=OF_LAYERS, positive=True)] = 0.01


@UPDATE_RULES.register("adamw")
class AdamW(Moments):
    """Adam with decoupled decay: Loshchilov and Hutter, 2019, https://arxiv.org/abs/1711.05101, algorithm 2.

    theta <- (1 - rate * decay) theta - rate * m^ / (sqrt(v^) + epsilon)
    """

    config: AdamWConfig
