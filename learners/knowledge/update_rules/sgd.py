"""Gradient descent: plain, with heavy-ball or with Nesterov momentum."""

from dataclasses import dataclass
from typing import Annotated

from metaloom.learners.domains import Learned, Real
from metaloom.learners.knowledge.update_rules.base import OF_LAYERS, UPDATE_RULES, UpdateConfig, UpdateRule, off
from metaloom.learners.tensors import InnerState, Tensors, add


@dataclass(frozen=True)
class SGDConfig(UpdateConfig):
    """Plain, heavy-ball or Nesterov momentum; the decay is the gradient of an L2 penalty (coupled).

    Attributes:
        momentum: Decay of the sum of the gradients; 0 is plain gradient descent.
        nesterov: Whether the momentum is Nesterov's.
        weight_decay: The factor of the weights that is added to the gradient.
    """

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
