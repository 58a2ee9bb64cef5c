r"""Backpropagation through the inner loop: whole, in segments, or its last steps alone.

Maclaurin et al., 2015, https://arxiv.org/abs/1502.03492; Finn et al., 2017, equation 1:

    dF/dphi = dL/dphi + sum_t (d step_t / dphi)^T (d theta_T / d theta_{t+1})^T v,    v = dL/dtheta_T

* ``unroll``: exact. Time about 3-5 T gradients, memory one graph per step.
* ``first_order``: theta_T - theta_0 is a constant (FOMAML, section 5.2 of the MAML paper): no
  second derivatives, and no signal to anything but the start.
* ``one_step``: all but the last step is a constant (T1-T2, Luketina et al., 2016,
  https://arxiv.org/abs/1511.06727): biased unless the inner loop sits near its solution;
  no signal to the start. In an online inner loop of one step it is exact.
* ``truncated``: all but the last K steps are a constant (Shaban et al., 2019,
  https://arxiv.org/abs/1810.10667): bias about (1 - mu / L)^K near the solution, where it
  equals K terms of the Neumann series. No signal to the start, unless ``first_order_start``
  says that the cut steps' displacement counts as a constant, as in ``first_order``.
* ``segments``: truncated backpropagation through time (Werbos, 1990; as learned optimizers are trained:
  Andrychowicz et al., 2016, section 3). The graph is cut every ``length`` steps, counted back from the last, and the
  losses on the way (``inner.trajectory_loss``) reach as far back as the segment they lie in. Biased: what a step does
  to the losses beyond its own segment is left out, which also keeps long products of Jacobians from exploding. Exact
  if one segment holds all steps. Costs the time and memory of ``unroll``.
* ``direct``: theta_T is a constant (Liu, Simonyan and Yang, 2019 (DARTS), https://arxiv.org/abs/1806.09055,
  section 2.3 at xi = 0): dF/dphi ~ dL/dphi at theta. No second derivatives, and no signal to anything but what takes
  part in the query pass itself. With ``look_ahead`` off, theta is the one before the inner steps, as in the paper's
  first-order search, and the inner loop is not run at all.
* ``displacement``: Reptile's outer direction (Nichol, Achiam and Schulman, 2018, https://arxiv.org/abs/1803.02999,
  algorithm 1, phi <- phi + epsilon (theta_T - phi)). As a gradient it is theta_0 - theta_T, so that an outer SGD of
  rate epsilon is the paper's update. It is not the derivative of the query loss (its own objective adds gradient
  alignment within a task), costs no second derivatives, and is defined for the initialization alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from metaloom.learners.domains import Int
from metaloom.learners.hypergradients.problem import (
    ESTIMATORS,
    NOTHING,
    Estimator,
    Hypergradient,
    Outer,
    Problem,
    ValueEstimator,
    solution,
)
from metaloom.learners.tensors import InnerState, Tensors, detach, under


def unrolled(
    problem: Problem, phi: Tensors, state: InnerState, first: int = 0, *, segment: int | None = None
) -> tuple[list[Tensor], Outer]:
    """Take the inner steps from ``first`` on: the weighted outer losses on the way, and the last evaluation."""
    losses, weights = [], problem.step_weights
    for index in range(first, problem.steps):
        if segment is not None and index > 0 and (problem.steps - index) % segment == 0:
            state = state.detached()
        state = problem.step(phi, state, index)
        if weights is not None and weights[index] > 0 and index < problem.steps - 1:
            losses.append(weights[index] * problem.outer(phi, state.theta, index + 1).loss)
    outer = problem.outer(phi, state.theta, problem.steps)
    return [*losses, outer.loss if weights is None else weights[-1] * outer.loss], outer


@ESTIMATORS.register("unroll")
class Unroll(ValueEstimator):
    """Exact: differentiate the whole inner loop."""

    exact = True

    def value(self, problem: Problem, phi: Tensors) -> tuple[Tensor, Outer]:
        losses, outer = unrolled(problem, phi, problem.start(phi))
        return sum(losses[1:], losses[0]), outer


@ESTIMATORS.register("first_order")
class FirstOrder(ValueEstimator):
    """The inner loop's displacement is a constant."""

    sees = frozenset({"initialization", "normalization", "prediction"})
    last_step_only = True

    def value(self, problem: Problem, phi: Tensors) -> tuple[Tensor, Outer]:
        outer = problem.outer(phi, _displaced(problem, phi, solution(problem, phi)), problem.steps)
        return outer.loss, outer


def _displaced(problem: Problem, phi: Tensors, end: InnerState) -> Tensors:
    """Return theta at the end of some inner steps, whose displacement from the start is a constant."""
    start = problem.start(phi).theta
    return {name: value + (end.theta[name] - value).detach() for name, value in start.items()}


@ESTIMATORS.register("one_step")
class OneStep(ValueEstimator):
    """Only the last inner step is differentiated."""

    blind = frozenset({"initialization"})
    last_step_only = True
    needs_steps = True

    def value(self, problem: Problem, phi: Tensors) -> tuple[Tensor, Outer]:
        last = problem.steps - 1
        _, outer = unrolled(problem, phi, solution(problem, phi, last), last)
        return outer.loss, outer


@dataclass(frozen=True)
class TruncatedConfig:
    """How much of the inner loop is differentiated.

    Attributes:
        last: K, the inner steps that are; all of them where there are fewer.
        first_order_start: Let the start have a first-order signal through the steps that are cut.
    """

    last: Annotated[int, Int(1, 1000)] = 5
    first_order_start: bool = False


@ESTIMATORS.register("truncated")
class Truncated(ValueEstimator):
    """Only the last K inner steps are differentiated."""

    Config = TruncatedConfig
    config: TruncatedConfig
    blind = frozenset({"initialization"})
    last_step_only = True

    @classmethod
    def gives_signal(cls, slot: str, settings: Mapping[str, Any] = NOTHING) -> bool:
        """The start has a signal where that is declared."""
        declared = slot == "initialization" and settings.get("first_order_start") is True
        return declared or super().gives_signal(slot, settings)

    def value(self, problem: Problem, phi: Tensors) -> tuple[Tensor, Outer]:
        cut = max(problem.steps - self.config.last, 0)
        state = solution(problem, phi, cut) if cut else problem.start(phi)
        if cut and self.config.first_order_start:
            state = state._replace(theta=_displaced(problem, phi, state))
        _, outer = unrolled(problem, phi, state, cut)
        return outer.loss, outer


@dataclass(frozen=True)
class SegmentsConfig:
    """How many inner steps a segment has; the paper takes 20 of 100."""

    length: Annotated[int, Int(1, 1000)] = 20


@ESTIMATORS.register("segments")
class Segments(ValueEstimator):
    """Each loss reaches back to the start of its own segment."""

    Config = SegmentsConfig
    config: SegmentsConfig
    blind = frozenset({"initialization"})  # of all the losses only the first segment's would reach it

    def value(self, problem: Problem, phi: Tensors) -> tuple[Tensor, Outer]:
        losses, outer = unrolled(problem, phi, problem.start(phi), segment=self.config.length)
        return torch.stack(losses).sum(), outer


@dataclass(frozen=True)
class DirectConfig:
    """Whether the inner steps are taken first."""

    look_ahead: bool = True


@ESTIMATORS.register("direct")
class Direct(ValueEstimator):
    """The inner loop is a constant, its start as well as its end."""

    Config = DirectConfig
    config: DirectConfig
    sees = frozenset({"architecture", "normalization", "prediction"})
    last_step_only = True

    def value(self, problem: Problem, phi: Tensors) -> tuple[Tensor, Outer]:
        taken = problem.steps if self.config.look_ahead else 0
        outer = problem.outer(phi, solution(problem, phi, taken).theta, taken)
        return outer.loss, outer


@ESTIMATORS.register("displacement")
class Displacement(Estimator):
    """theta_0 - theta_T."""

    sees = frozenset({"initialization"})
    last_step_only = True
    needs_steps = True

    def estimate(self, problem: Problem, phi: Tensors) -> Hypergradient:
        end, start = solution(problem, phi).theta, problem.start(detach(phi)).theta
        moved = {name: value.detach() - end[name] for name, value in start.items()}
        outer = problem.outer(phi, end, problem.steps)
        return Hypergradient(problem.start_gradient(phi, under("theta", moved)), outer.detached(), {})
