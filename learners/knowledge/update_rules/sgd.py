"""Gradient descent: plain, with heavy-ball or with Nesterov momentum."""

from dataclasses import dataclass
from typing import Annotated

from metaloom.learners.domains import Learned, Real
from metaloom.learners.knowledge.update_rules.base import OF_LAYERS, UPDATE_RULES, UpdateConfig, UpdateRule, off
from metaloom.learners.tensors import InnerState, Tensors


@dataclass(frozen=True)
class SGDConfig(UpdateConfig):
    """Plain, heavy-ball or Nesterov momentum, with decoupled-from-loss L2 decay."""

    momentum: Annotated[float | Learned, Real(0.0, 0.999, per=OF_LAYERS)] = 0.0
    nesterov: bool = False
    weight_decay: Annotated[float | Learned, Real(1e-6, 0.1, log=True, per=OF_LAYERS, positive=True)] = 0.0


@UPDATE_RULES.register("sgd")
class SGD(UpdateRule):
    """b <- m b + g + d theta;  theta <- theta - rate * b  (as torch.optim.SGD, dampening 0)."""

    Config = SGDConfig
    config: SGDConfig

    def begin(self, theta: Tensors) -> Tensors:
        return {} if off(self.config.momentum) else self.zeros(theta, "momentum")

    def step(self, phi: Tensors, state: InnerState, gradient: Tensors, index: int) -> InnerState:
        theta, buffers = dict(state.theta), dict(state.buffers)
        for name, slope in gradient.items():
            momentum, decay = (self.setting(phi, knob, name, index) for knob in ("momentum", "weight_decay"))
            direction = slope if off(decay) else slope + decay * theta[name]
            if not off(momentum):
                velocity = momentum * buffers[f"momentum/{name}"] + direction
                buffers[f"momentum/{name}"] = velocity
                direction = direction + momentum * velocity if self.config.nesterov else velocity
            theta[name] = theta[name] - self.rate(phi, name, index) * direction
        return InnerState(theta, buffers)
