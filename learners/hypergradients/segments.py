r"""Backpropagation through the inner loop in segments: truncated backpropagation through time.

Werbos, 1990; as learned optimizers are trained (Andrychowicz et al., 2016, section 3): the inner loop runs to
its end, its graph is cut every ``length`` steps (counted back from the last), and the losses along the way
(``inner.trajectory_loss``) reach as far back as the segment they lie in. Biased: what a step does to the losses
beyond its own segment is left out, which also keeps long products of Jacobians from exploding. Exact if one
segment holds all steps. Costs the time and memory of ``unroll``.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from metaloom.learners.domains import Int
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import ESTIMATORS, Outer, Problem, ValueEstimator, detached
from metaloom.learners.tensors import Tensors


@dataclass(frozen=True)
class SegmentsConfig:
    """How many inner steps a segment has; the paper takes 20 of 100."""

    length: Annotated[int, Int(1, 1000)] = 20

    def __post_init__(self) -> None:
        if self.length < 1:
            raise LearnerError(f"outer.hypergradient.length must be at least 1, got {self.length}")


@ESTIMATORS.register("segments")
class Segments(ValueEstimator):
    """Each loss reaches back to the start of its own segment."""

    Config = SegmentsConfig
    config: SegmentsConfig
    blind = frozenset({"initialization"})  # of all the losses only the first segment's would reach it

    def value(self, problem: Problem, phi: Tensors) -> tuple[Tensor, Outer]:
        state, weights = problem.start(phi), problem.step_weights
        weighted: list[Tensor] = []
        outer: Outer | None = None
        for index in range(problem.steps):
            if index > 0 and (problem.steps - index) % self.config.length == 0:
                state = detached(state)
            state = problem.step(phi, state, index)
            if index == problem.steps - 1 or (weights is not None and weights[index] > 0):
                outer = problem.outer(phi, state.theta, index + 1)
                weighted.append(outer.loss if weights is None else weights[index] * outer.loss)
        if outer is None:
            raise LearnerError(f"learner.update.steps must be at least 1, got {problem.steps}")
        return torch.stack(weighted).sum(), outer
