r"""How the inner loop moves: functional optimizers whose rates may be learned, at any granularity.

``torch.optim`` cannot be unrolled (in-place updates), so these are pure functions. A rate learned per ``parameter`` is
Meta-SGD's (Li et al., 2017, https://arxiv.org/abs/1707.09835, equation 3: theta - alpha o grad); per ``layer_step`` it
is MAML++'s LSLR (Antoniou et al., 2019, https://arxiv.org/abs/1810.09502, section 4), where, as in its reference code,
each tensor has its own. Momentum, the betas and the decay are learned in the same way, per layer and step. What is
learned per step keeps its last value beyond the steps it was trained for.

``layer_decay`` d gives the l-th of L layers the rate eta d^(L - l), and the head eta itself: the discriminative
fine-tuning of Howard and Ruder, 2018, https://arxiv.org/abs/1801.06146, section 3.2, where d is 1 / 2.6.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, Self

import torch
from torch import Generator, Tensor

from metaloom.learners.component import Component
from metaloom.learners.domains import Added, Bounds, Int, Learned, Real
from metaloom.learners.errors import LearnerError, unknown
from metaloom.learners.networks.base import HEAD, Network, first_layers
from metaloom.learners.registry import Registry
from metaloom.learners.tensors import InnerState, Tensors

UPDATE_RULES: Registry[type[Component]] = Registry("update rule")
RATES = ("scalar", "layer", "parameter", "step", "layer_step")  # granularities of a rate
OF_LAYERS = ("scalar", "layer", "step", "layer_step")  # granularities of what is one number for a whole tensor
NETWORK = "network"  # the place in phi of the weights of a rule that is a network


@dataclass(frozen=True)
class UpdateConfig:
    """What every update rule shares.

    Attributes:
        steps: Inner steps while meta-training; 0 takes none.
        evaluation_steps: Inner steps when evaluated; None takes as many as in training.
        adapt: Whether all parameters move in the inner loop, or only the head (ANIL).
        only: Names of the layers or parameters that alone move, ``*`` in them standing for anything, such as
            ``layer1`` or ``*.bias``; none leaves it to ``adapt``.
        frozen: Names, likewise, of those that neither the inner nor the outer loop moves.
        rate: The inner learning rate.
        start_spread: The first learned rates are drawn from (1 - this) to (1 + this) times the start.
    """

    rate: Annotated[float | Learned, Real(1e-4, 1.0, log=True, per=RATES), Bounds(above=0)] = 0.01
    start_spread: Annotated[float, Bounds(at_least=0, below=1)] = 0.0
    steps: Annotated[int, Int(1, 100), Bounds(at_least=0)] = 5
    evaluation_steps: Annotated[int | None, Int(1, 1000), Bounds(at_least=0)] = None
    adapt: Literal["all", "head"] = "all"
    only: Annotated[tuple[str, ...], Added()] = ()
    frozen: Annotated[tuple[str, ...], Added()] = ()

    def __post_init__(self) -> None:
        if self.only and self.adapt == "head":
            raise LearnerError(
                "learner.update.only: adapt: head names what moves already; set adapt to all, or remove only"
            )


@dataclass(frozen=True)
class LayeredConfig(UpdateConfig):
    """Of rules that move every parameter at a rate of its tensor.

    Attributes:
        layer_decay: The rate of each layer over that of the next one towards the outputs; the head has the whole rate,
            and 1 gives every layer the same.
    """

    layer_decay: Annotated[float, Real(0.3, 1.0, per=()), Bounds(above=0), Added()] = 1.0


class UpdateRule(Component, ABC):
    """One inner step as a pure function.

    Class attributes:
        reads_loss: Whether ``step`` finds the support set's mean loss at theta in ``buffers["loss"]``.

    Attributes:
        depths: How many layers lie between a parameter and the head, plus one, where ``layer_decay`` reads it; the
            head's parameters are not in it.
    """

    slot = "update"
    reaches_losses = False
    config: UpdateConfig
    reads_loss: ClassVar[bool] = False
    depths: Mapping[str, int] = MappingProxyType({})

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        """Start every learned knob at its granularity; ``start_spread`` s draws rates from U[(1 - s), (1 + s)] start.

        Meta-SGD's U[0.005, 0.1] is start 0.0525 with spread 0.905.
        """
        phi: Tensors = {}
        for knob in self.learned_knobs():
            spread = self.config.start_spread if knob == "rate" else 0.0
            start = self.start(knob)
            bounds = [self.real(knob).unconstrained(start * (1 + sign * spread)) for sign in (-1, 1)]
            phi |= {
                name: torch.empty(shape).uniform_(*bounds, generator=generator)
                for name, shape in self._shapes(knob, theta).items()
            }
        return phi

    def _shapes(self, knob: str, theta: Tensors) -> dict[str, tuple[int, ...]]:
        """Return the leaves of phi that a learned knob has at its granularity, and their shapes."""
        steps, adapted = self.config.steps, self.adapted(theta)
        by_granularity: dict[str, dict[str, tuple[int, ...]]] = {
            "scalar": {knob: ()},
            "step": {knob: (steps,)},
            "layer": {f"{knob}/{name}": () for name in adapted},
            "layer_step": {f"{knob}/{name}": (steps,) for name in adapted},
            "parameter": {f"{knob}/{name}": tuple(value.shape) for name, value in adapted.items()},
        }
        return by_granularity[self.granularity(knob)]

    def granularity(self, knob: str) -> str:
        """Return at which granularity a learned knob is learned; raises LearnerError for one it does not have."""
        allowed = self.real(knob).per
        per = self.learned_knobs()[knob].per or allowed[0]
        if per not in allowed:
            raise LearnerError(f"learner.update.{knob}: {unknown('granularity', per, allowed)}")
        return per

    def adapts(self, name: str) -> bool:
        """Whether the inner loop moves this parameter."""
        if self.freezes(name):
            return False
        if self.config.only:
            return is_named(name, self.config.only)
        return self.config.adapt == "all" or name.startswith(HEAD)

    def freezes(self, name: str) -> bool:
        """Whether neither loop moves this parameter."""
        return is_named(name, self.config.frozen)

    def freezing(self, names: Iterable[str]) -> Self:
        """Return the same rule, which freezes these parameters too."""
        config = replace(self.config, frozen=(*self.config.frozen, *names))
        other = type(self)(config)
        other.depths = self.depths
        return other

    def in_layers(self, network: Network) -> Self:
        """Return the same rule for a network, whose layers ``layer_decay`` counts."""
        if getattr(self.config, "layer_decay", 1) == 1:
            return self
        names = list(network.parameters(Generator()))
        layers = [first_layers([layer], names, 1) for layer in network.layers()]
        other = type(self)(self.config)
        other.depths = {name: depth for depth, layer in enumerate(reversed(layers), 1) for name in layer}
        return other

    def setting(self, phi: Tensors, knob: str, name: str, index: int) -> float | Tensor:
        """Return a knob for parameter ``name`` at inner step ``index``: a number, or a tensor that broadcasts."""
        value = getattr(self.config, knob)
        if not isinstance(value, Learned):
            return value if isinstance(value, Tensor) else float(value)
        per = self.granularity(knob)
        leaf = phi[knob] if per in ("scalar", "step") else phi[f"{knob}/{name}"]
        if per in ("step", "layer_step"):
            leaf = leaf[min(index, self.config.steps - 1)]
        return self.real(knob).value(leaf)

    def rate(self, phi: Tensors, name: str, index: int) -> float | Tensor:
        """Return the rate of parameter ``name`` at inner step ``index``."""
        rate, depth = self.setting(phi, "rate", name, index), self.depths.get(name, 0)
        return rate * getattr(self.config, "layer_decay") ** depth if depth else rate  # noqa: B009 (as in ``decay``)

    @property
    def evaluation_steps(self) -> int:
        """Inner steps when evaluated."""
        return self.config.steps if self.config.evaluation_steps is None else self.config.evaluation_steps

    def begin(self, theta: Tensors) -> Tensors:
        """Return the optimizer's buffers before the first step."""
        return {}

    def regularization(self, phi: Tensors, theta: Tensors, index: int) -> Tensors:
        """Return the gradient of the penalty that ``step`` itself adds to the inner loss; absent entries are zero.

        The implicit estimators add it to the inner gradient, whose root is the inner solution. They refuse a rule that
        moves theta although gradient and penalty cancel, such as decoupled weight decay.
        """
        return {}

    def decay(self, phi: Tensors, theta: Tensors, index: int) -> Tensors:
        """Return the gradient of the penalty weight_decay / 2 |theta|^2, for rules whose decay is coupled."""
        if off(getattr(self.config, "weight_decay")):  # noqa: B009 (not every rule has one)
            return {}
        adapted = self.adapted(theta)
        return {name: self.setting(phi, "weight_decay", name, index) * value for name, value in adapted.items()}

    @abstractmethod
    def step(self, phi: Tensors, state: InnerState, gradient: Tensors, index: int) -> InnerState:
        """Move the adapted parameters by inner step ``index`` (from 0), given their gradient; differentiable."""

    def adapted(self, theta: Tensors) -> Tensors:
        """Return the parameters that the inner loop moves."""
        return {name: value for name, value in theta.items() if self.adapts(name)}

    def zeros(self, theta: Tensors, *buffers: str) -> Tensors:
        """Return buffers of zeros, one per adapted parameter and of its shape."""
        adapted = self.adapted(theta)
        return {f"{buffer}/{name}": torch.zeros_like(value) for buffer in buffers for name, value in adapted.items()}


def is_named(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of some patterns means a parameter: its own name, or that of a layer that it is in."""
    return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") for pattern in patterns)


def off(value: object) -> bool:
    """Whether a knob is fixed at zero, so that its term can be left out."""
    return isinstance(value, float) and value == 0.0
