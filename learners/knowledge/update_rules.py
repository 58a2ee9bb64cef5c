r"""How the inner loop moves: functional optimizers whose rates may be learned, at any granularity.

``torch.optim`` cannot be unrolled (in-place updates), so these are pure functions. A rate
learned per ``parameter`` is Meta-SGD's (Li et al., 2017, https://arxiv.org/abs/1707.09835,
equation 3: theta - alpha o grad); per ``layer_step`` it is MAML++'s LSLR (Antoniou et al.,
2019, https://arxiv.org/abs/1810.09502, section 4), where, as in its reference, every tensor
has its own. A per-step rate holds its last value beyond the steps it was trained for.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Generator, Tensor

from metaloom.learners.base import Tensors
from metaloom.learners.domains import Int, Learned, Real
from metaloom.learners.errors import LearnerError, unknown
from metaloom.learners.knowledge.slots import Component
from metaloom.learners.networks import HEAD
from metaloom.learners.registry import Registry

UPDATE_RULES: Registry[type[Component]] = Registry("update rule")
GRANULARITIES = ("scalar", "layer", "parameter", "step", "layer_step")


class InnerState(NamedTuple):
    """theta and the inner optimizer's buffers."""

    theta: Tensors
    buffers: Tensors


@dataclass(frozen=True)
class UpdateConfig:
    """What every update rule shares.

    Attributes:
        steps: Inner steps while meta-training.
        evaluation_steps: Inner steps when evaluated; None takes as many as in training.
        adapt: Whether all parameters move in the inner loop, or only the head (ANIL).
    """

    rate: Annotated[float | Learned, Real(1e-4, 1.0, log=True, per=GRANULARITIES)] = 0.01
    start_spread: float = 0.0
    steps: Annotated[int, Int(1, 100)] = 5
    evaluation_steps: Annotated[int | None, Int(1, 1000)] = None
    adapt: Literal["all", "head"] = "all"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise LearnerError(f"learner.update.steps must be at least 1, got {self.steps}")
        if isinstance(self.rate, float | int) and self.rate <= 0:
            raise LearnerError(f"learner.update.rate must be above 0, got {self.rate}")
        if not 0 <= self.start_spread < 1:
            raise LearnerError(f"learner.update.start_spread must be in [0, 1), got {self.start_spread}")


class UpdateRule(Component, ABC):
    """One inner step as a pure function."""

    slot = "update"
    Config = UpdateConfig
    config: UpdateConfig

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        """Start every learned knob; the rate at its granularity, spread evenly about its start.

        ``start_spread`` s draws each element of the rate from U[(1 - s) start, (1 + s) start]:
        Meta-SGD's U[0.005, 0.1] is start 0.0525 with spread 0.905.
        """
        phi: Tensors = {}
        for name in self.learned_knobs():
            phi |= (
                self._rate_init(theta, generator) if name == "rate" else {name: self.init_knob(name, theta, generator)}
            )
        return phi

    def _rate_init(self, theta: Tensors, generator: Generator) -> Tensors:
        per, steps = self._rate_granularity(), self.config.steps
        adapted = {name: value for name, value in theta.items() if self.adapts(name)}
        by_granularity: dict[str, dict[str, tuple[int, ...]]] = {
            "scalar": {"rate": ()},
            "step": {"rate": (steps,)},
            "layer": {f"rate/{name}": () for name in adapted},
            "layer_step": {f"rate/{name}": (steps,) for name in adapted},
            "parameter": {f"rate/{name}": tuple(value.shape) for name, value in adapted.items()},
        }
        start, spread = self.start("rate"), self.config.start_spread
        bounds = (start * (1 - spread), start * (1 + spread))
        return {
            name: torch.empty(shape).uniform_(*bounds, generator=generator)
            for name, shape in by_granularity[per].items()
        }

    def _rate_granularity(self) -> str:
        learned = self.learned_knobs()["rate"]
        per = learned.per or GRANULARITIES[0]
        if per not in GRANULARITIES:
            raise LearnerError(f"learner.update.rate: {unknown('granularity', per, GRANULARITIES)}")
        return per

    def adapts(self, name: str) -> bool:
        """Whether the inner loop moves this parameter."""
        return self.config.adapt == "all" or name.startswith(HEAD)

    def rate(self, phi: Tensors, name: str, index: int) -> float | Tensor:
        """Return the rate of parameter ``name`` at inner step ``index``: a number, or a tensor that broadcasts."""
        if not isinstance(self.config.rate, Learned):
            return float(self.config.rate)
        per = self._rate_granularity()
        value = phi["rate"] if per in ("scalar", "step") else phi[f"rate/{name}"]
        return value[min(index, self.config.steps - 1)] if per in ("step", "layer_step") else value

    @property
    def evaluation_steps(self) -> int:
        """Inner steps when evaluated."""
        return self.config.evaluation_steps or self.config.steps

    def begin(self, theta: Tensors) -> Tensors:
        """Return the optimizer's buffers before the first step."""
        return {}

    @abstractmethod
    def step(self, phi: Tensors, state: InnerState, gradient: Tensors, index: int) -> InnerState:
        """Move the adapted parameters along their gradient; differentiable in everything.

        Args:
            phi: This slot's part of phi.
            state: theta and buffers before the step.
            gradient: One tensor per adapted parameter.
            index: The inner step's number from 0.
        """


@dataclass(frozen=True)
class SGDConfig(UpdateConfig):
    """Plain, heavy-ball or Nesterov momentum, with decoupled-from-loss L2 decay."""

    momentum: Annotated[float | Learned, Real(0.0, 0.999)] = 0.0
    nesterov: bool = False
    weight_decay: Annotated[float | Learned, Real(1e-6, 0.1, log=True, positive=True)] = 0.0


def off(value: float | Tensor) -> bool:
    """Whether a knob is fixed at zero, so that its term can be left out."""
    return isinstance(value, float) and value == 0.0


@UPDATE_RULES.register("sgd")
class SGD(UpdateRule):
    """b <- m b + g + d theta;  theta <- theta - rate * b  (as torch.optim.SGD, dampening 0)."""

    Config = SGDConfig
    config: SGDConfig

    def begin(self, theta: Tensors) -> Tensors:
        if self.config.momentum == 0.0:
            return {}
        return {f"momentum/{name}": torch.zeros_like(value) for name, value in theta.items() if self.adapts(name)}

    def step(self, phi: Tensors, state: InnerState, gradient: Tensors, index: int) -> InnerState:
        momentum, decay = self.knob(phi, "momentum"), self.knob(phi, "weight_decay")
        theta, buffers = dict(state.theta), dict(state.buffers)
        for name, slope in gradient.items():
            direction = slope if off(decay) else slope + decay * theta[name]
            if not off(momentum):
                velocity = momentum * buffers[f"momentum/{name}"] + direction
                buffers[f"momentum/{name}"] = velocity
                direction = direction + momentum * velocity if self.config.nesterov else velocity
            theta[name] = theta[name] - self.rate(phi, name, index) * direction
        return InnerState(theta, buffers)


@dataclass(frozen=True)
class AdamConfig(UpdateConfig):
    """Adam's own defaults; ``weight_decay`` is decoupled, so that a positive one makes it AdamW."""

    rate: Annotated[float | Learned, Real(1e-5, 0.1, log=True, per=GRANULARITIES)] = 1e-3
    beta1: Annotated[float | Learned, Real(0.0, 0.999)] = 0.9
    beta2: Annotated[float | Learned, Real(0.5, 0.9999)] = 0.999
    epsilon: float = 1e-8
    weight_decay: Annotated[float | Learned, Real(1e-6, 0.1, log=True, positive=True)] = 0.0


@UPDATE_RULES.register("adam")
class Adam(UpdateRule):
    """Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980, algorithm 1; AdamW where it decays."""

    Config = AdamConfig
    config: AdamConfig

    def begin(self, theta: Tensors) -> Tensors:
        adapted = {name: value for name, value in theta.items() if self.adapts(name)}
        zeros = {
            f"{moment}/{name}": torch.zeros_like(value)
            for moment in ("first", "second")
            for name, value in adapted.items()
        }
        return zeros | {"steps": torch.zeros((), dtype=next(iter(adapted.values())).dtype)}

    def step(self, phi: Tensors, state: InnerState, gradient: Tensors, index: int) -> InnerState:
        beta1, beta2, decay = (self.knob(phi, name) for name in ("beta1", "beta2", "weight_decay"))
        theta, buffers = dict(state.theta), dict(state.buffers)
        count = buffers["steps"] + 1
        buffers["steps"] = count
        for name, slope in gradient.items():
            rate = self.rate(phi, name, index)
            first = beta1 * buffers[f"first/{name}"] + (1 - beta1) * slope
            second = beta2 * buffers[f"second/{name}"] + (1 - beta2) * slope.square()
            buffers[f"first/{name}"], buffers[f"second/{name}"] = first, second
            # the root's gradient is infinite at a zero moment, which a dead unit has: keep it above epsilon squared
            root = torch.sqrt((second / (1 - beta2**count)).clamp_min(self.config.epsilon**2))
            kept = theta[name] if off(decay) else theta[name] * (1 - rate * decay)
            theta[name] = kept - rate * (first / (1 - beta1**count)) / (root + self.config.epsilon)
        return InnerState(theta, buffers)
