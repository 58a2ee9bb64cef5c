r"""The bilevel problem of one episode, as pure functions, and what an estimator returns.

    minimize over phi    F(phi) = L_query(theta_T(phi), phi)
    where                theta_0 = start(phi),  theta_{t+1} = update(phi, theta_t, gradient(phi, theta_t, t), t)

An estimator turns a ``Problem`` and phi into dF/dphi. It sees tensors and functions of tensors alone: networks,
episodes and components stay outside. Slot names occur only as labels, in what an estimator declares that it sees.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import torch
from torch import Generator, Tensor

from metaloom.learners.component import NoConfig
from metaloom.learners.errors import LearnerError
from metaloom.learners.registry import Registry
from metaloom.learners.tensors import InnerState, Tensors, add, as_leaves, derivative, detach, part, pullback, pullbacks

NOTHING: Mapping[str, Tensor] = MappingProxyType({})
Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Mapper(Protocol):
    """Evaluates a pure function at every item and keeps their order, in this process or on other machines."""

    def __call__(self, function: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
        """Return ``function`` of each item."""
        ...


def one_by_one(function: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
    """Evaluate in this process, one item after another."""
    return [function(item) for item in items]


class Route(StrEnum):
    """A way by which a tensor of phi reaches the outer loss; the value is a slot that takes this way alone."""

    START = "initialization"  # the start of what the inner loop moves
    STILL_START = "the start of what no inner step moves"
    INNER = "loss"
    UPDATE = "update"
    OUTER = "prediction"


class Outer(NamedTuple):
    """The evaluation of the query set, all tensors so that it passes through vmap.

    loss: []    accuracy: [], NaN in regression    statistics: batch norm's, collected in the query pass
    """

    loss: Tensor
    accuracy: Tensor
    statistics: Tensors

    def detached(self) -> "Outer":
        """Return the evaluation without the graph that made it."""
        return Outer(self.loss.detach(), self.accuracy.detach(), detach(self.statistics))


class Linearized(NamedTuple):
    """The inner problem near one theta.

    Attributes:
        gradient: The inner gradient at theta, not to be differentiated.
        surrogate: The inner loss elsewhere, with the example weights fixed at theta; its derivative at theta is
            ``gradient``.
        loss: The surrogate at theta, where it costs nothing: phi reaches it by the example weights alone.
    """

    gradient: Tensors
    surrogate: Callable[[Tensors], Tensor]
    loss: Tensor | None = None


def no_regularization(phi: Tensors, theta: Tensors) -> Tensors:
    """Return the gradient of no penalty."""
    return {}


@dataclass(frozen=True)
class Problem:
    """One episode's inner and outer problem.

    Attributes:
        steps: T, the number of inner steps.
        start: phi to the inner state before the first step.
        gradient: (phi, theta, t) to the gradient of the inner loss at step t, differentiable in phi and theta.
        update: (phi, state, gradient, t) to the next state, differentiable in phi, state and gradient.
        outer: (phi, theta, steps taken) to the evaluation of the query set.
        linearized: (phi, theta) to the last step's inner gradient at theta, and the inner loss whose gradient it is.
        regularization: (phi, theta) to the gradient of the penalty that ``update`` itself adds to the inner loss, such
            as weight decay; an absent entry is zero. The inner solution is the root of its sum with ``gradient``.
        step_weights: Weight of the outer loss after each inner step; None weighs the last alone.
        generator: Source of randomness, for the estimators that draw.
        memory: What the estimator itself keeps from one outer step to the next (online inner loops).
        routes: For each tensor of phi, by which routes it takes part; empty where that was checked before.
    """

    steps: int
    start: Callable[[Tensors], InnerState]
    gradient: Callable[[Tensors, Tensors, int], Tensors]
    update: Callable[[Tensors, InnerState, Tensors, int], InnerState]
    outer: Callable[[Tensors, Tensors, int], Outer]
    linearized: Callable[[Tensors, Tensors], Linearized]
    regularization: Callable[[Tensors, Tensors], Tensors] = no_regularization
    step_weights: tuple[float, ...] | None = None
    generator: Generator | None = None
    memory: Tensors = field(default_factory=dict)
    routes: Mapping[str, frozenset[Route]] = field(default_factory=dict)

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of the outer loss after each inner step."""
        return self.step_weights or (0.0,) * (self.steps - 1) + (1.0,)

    def step(self, phi: Tensors, state: InnerState, index: int) -> InnerState:
        """Take inner step ``index``; differentiable in phi and state to second order."""
        return self.update(phi, state, self.gradient(phi, state.theta, index), index)

    def stationarity(self, phi: Tensors, theta: Tensors) -> Tensors:
        """Return the last step's inner gradient with what the update adds to it: zero at the inner solution."""
        return add(self.gradient(phi, theta, self.steps - 1), self.regularization(phi, theta))

    def states(self, phi: Tensors, steps: int) -> Iterator[InnerState]:
        """Yield the inner state before the first step, and after each of so many."""
        state = self.start(phi)
        yield state
        for index in range(steps):
            state = self.step(phi, state, index)
            yield state

    def value(self, phi: Tensors) -> tuple[float, Outer]:
        """Run the inner loop without a graph: the (multi-step) outer loss to minimize, and the last evaluation."""
        fixed, total, (*early, last) = detach(phi), 0.0, self.weights
        state = self.start(fixed).detached()
        with torch.no_grad():
            for index in range(self.steps):
                state = self.step(fixed, state, index).detached()
                if index < self.steps - 1 and early[index]:
                    total += early[index] * float(self.outer(fixed, state.theta, index + 1).loss)
            outer = self.outer(fixed, state.theta, self.steps)
        return total + last * float(outer.loss), outer.detached()

    def outer_gradients(self, phi: Tensors, end: InnerState, weight: float = 1.0) -> tuple[Outer, Tensors, Tensors]:
        """Return the outer evaluation at the last state, and its weighted loss's gradients by phi and flat state."""
        leaves, flat = as_leaves(phi), as_leaves(end.flat())
        outer = self.outer(leaves, part(flat, "theta"), self.steps)
        by_phi, by_state = pullbacks({"": outer.loss}, {"": torch.full_like(outer.loss, weight)}, leaves, flat)
        return outer.detached(), by_phi, by_state

    def start_gradient(self, phi: Tensors, cotangent: Tensors) -> Tensors:
        """Pull the cotangent of a flat initial state, or of a part of it, back to phi."""
        leaves = as_leaves(phi)
        start = {name: value for name, value in self.start(leaves).flat().items() if name in cotangent}
        return pullback(start, cotangent, leaves)


class Hypergradient(NamedTuple):
    """dF/dphi with its outer evaluation, the estimator's diagnostics, and what the estimator keeps."""

    gradient: Tensors
    outer: Outer
    diagnostics: Mapping[str, float]
    memory: Mapping[str, Tensor] = NOTHING


class Estimator(ABC):
    """One way to get the outer gradient.

    Class attributes:
        Config: Its frozen dataclass.
        sees: The slots that it gives a signal to; ``*`` for all.
        blind: Slots it cannot see although ``sees`` says all.
        last_step_only: Whether it refuses a multi-step outer loss.
        needs_steps: Whether it refuses an inner loop of no steps.
        at_solution: Whether it differentiates the inner solution, whatever start and path led there.
        stationary: Whether it takes that solution for the root of the inner gradient, not just for a fixed point of
            the update.
        online_only: Whether it needs an inner loop that persists from one outer step to the next.
        exact: Whether it leaves nothing out, so that its error is of rounding alone.
        functional: Whether the inner loop must differentiate by torch.func, not by autograd's own graph.
        spreads: Whether it evaluates perturbations of phi through ``mapper``, so that they may run elsewhere.
    """

    Config: ClassVar[type] = NoConfig
    sees: ClassVar[frozenset[str]] = frozenset({"*"})
    blind: ClassVar[frozenset[str]] = frozenset()
    last_step_only: ClassVar[bool] = False
    needs_steps: ClassVar[bool] = False
    at_solution: ClassVar[bool] = False
    stationary: ClassVar[bool] = False
    online_only: ClassVar[bool] = False
    exact: ClassVar[bool] = False
    functional: ClassVar[bool] = False
    spreads: ClassVar[bool] = False
    mapper: Mapper = staticmethod(one_by_one)

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def name(self) -> str:
        """The name under which it is registered."""
        return ESTIMATORS.name_of(type(self))

    def __call__(self, problem: Problem, phi: Tensors) -> Hypergradient:
        """Return dF/dphi, one tensor per leaf of ``phi``; raises LearnerError where the result would be wrong."""
        self.check(problem)
        return self.estimate(problem, phi)

    def check(self, problem: Problem) -> None:
        """Refuse a problem that it cannot differentiate; raises LearnerError."""
        self.require_signal(problem.routes)
        self.require_steps(problem.steps)
        if self.last_step_only and problem.step_weights is not None:
            raise LearnerError(
                f"outer.hypergradient: {self.name} differentiates at the last inner step only; "
                "set inner.multi_step_loss to 0 and inner.trajectory_loss to false, or use unroll"
            )

    @abstractmethod
    def estimate(self, problem: Problem, phi: Tensors) -> Hypergradient:
        """Return dF/dphi, one tensor per leaf of ``phi``."""

    def require_steps(self, steps: int) -> None:
        """Refuse an inner loop without the step that this estimator differentiates."""
        if steps == 0 and self.needs_steps:
            raise LearnerError(
                f"outer.hypergradient: {self.name} differentiates inner steps, and there are none "
                "(learner.update.steps: 0); use unroll"
            )

    def require_signal(self, routes: Mapping[str, frozenset[Route]]) -> None:
        """Refuse a tensor of phi that takes part by routes alone to which this estimator is blind."""
        for name, ways in routes.items():
            if not any(self._sees(way) for way in ways):
                raise LearnerError(
                    f"outer.hypergradient: {self.name} gives no signal to '{name}', which takes part in "
                    f"{' and '.join(sorted(way.name.lower() for way in ways))} alone; use unroll or adjoint, or fix it"
                )

    def _sees(self, way: Route) -> bool:
        if way is Route.START and self.at_solution:  # the solution does not depend on where the loop starts
            return False
        slot = Route.START if way is Route.STILL_START else way
        return self.gives_signal(slot.value, vars(self.config))

    @classmethod
    def gives_signal(cls, slot: str, settings: Mapping[str, Any] = NOTHING) -> bool:
        """Whether what a slot learns gets a gradient from this estimator, with these of its settings."""
        return ("*" in cls.sees or slot in cls.sees) and slot not in cls.blind

    def begin(self, phi: Tensors, state: InnerState) -> Tensors:
        """Return what the estimator keeps from one outer step to the next, before the first; most keep nothing."""
        return {}

    def generator(self, problem: Problem) -> Generator:
        """Return the problem's source of randomness; raises LearnerError if it has none."""
        if problem.generator is None:
            raise LearnerError(f"outer.hypergradient: {self.name} draws at random, and was given no generator")
        return problem.generator


class ValueEstimator(Estimator):
    """An estimator that is the derivative of a (possibly cut) computation, so that vmap can batch it."""

    @abstractmethod
    def value(self, problem: Problem, phi: Tensors) -> tuple[Tensor, Outer]:
        """Return the scalar whose gradient by phi is the estimate, and the outer evaluation."""

    def estimate(self, problem: Problem, phi: Tensors) -> Hypergradient:
        """Differentiate ``value``."""
        leaves = as_leaves(phi)
        total, outer = self.value(problem, leaves)
        return Hypergradient(derivative(total, leaves), outer.detached(), {})


ESTIMATORS: Registry[type[Estimator]] = Registry("hypergradient estimator")


def solution(problem: Problem, phi: Tensors, steps: int | None = None) -> InnerState:
    """Run the inner loop, or its first ``steps``, without keeping its graph; memory is flat in the steps."""
    fixed = detach(phi)  # leaves of phi would make each step keep its graph
    state = problem.start(fixed).detached()
    for index in range(problem.steps if steps is None else steps):
        state = problem.step(fixed, state, index).detached()
    return state
