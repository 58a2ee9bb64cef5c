r"""The hypergradient at the inner solution, whatever path led there.

Rajeswaran et al., 2019 (iMAML), https://arxiv.org/abs/1909.04630, lemma 1, for the proximal inner
problem; Lorraine et al., 2020, https://arxiv.org/abs/1911.02590, for the general one. Where the inner
gradient g(theta*, phi) vanishes,

    dF/dphi = dL/dphi - (dg/dphi)^T q,    H^T q = v,    H = dg/dtheta,  v = dL/dtheta*

With a proximal inner problem, g = grad L_support + lambda (theta - phi), this is iMAML's
(I + H_support / lambda)^-1 v. It is as good as theta* is: the norm of the inner gradient and the
residual of the linear solve are always reported. Memory: one inner graph, whatever the steps.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch

from metaloom.learners.base import Tensors
from metaloom.learners.domains import Int
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import (
    ESTIMATORS,
    Estimator,
    Hypergradient,
    Problem,
    as_leaves,
    derivative,
    detached_outer,
    dot,
    norm,
    pullback,
    require_last_step_only,
    solution,
)
from metaloom.learners.knowledge.slots import part, under

Product = Callable[[Tensors], Tensors]
NEUMANN_DIVERGED = 1e3  # a term this many times as long as the first: the series does not converge


class Implicit(Estimator):
    """What both solvers share: the solution, the right-hand side, and the product with dg/dphi."""

    blind = frozenset({"update"})

    def __call__(self, problem: Problem, phi: Tensors) -> Hypergradient:
        require_last_step_only(problem, "an implicit gradient")
        theta = solution(problem, phi).theta
        leaves, theta_leaves = as_leaves(phi), as_leaves(theta)
        outer = problem.outer(leaves, theta_leaves, problem.steps)
        both = derivative(outer.loss, under("phi", leaves) | under("theta", theta_leaves))

        slope = problem.gradient(leaves, theta_leaves)
        right = {name: value for name, value in part(both, "theta").items() if name in slope}
        inner = {name: theta_leaves[name] for name in slope}

        def product(vector: Tensors) -> Tensors:
            return pullback(slope, vector, inner, keep=True)

        found, diagnostics = self.solve(product, right)
        residual = {name: right[name] - value for name, value in product(found).items()}
        diagnostics |= {
            "inner_gradient_norm": float(norm({name: value.detach() for name, value in slope.items()})),
            "residual": float(norm(residual) / norm(right).clamp_min(torch.finfo(outer.loss.dtype).tiny)),
        }
        through = pullback(slope, found, leaves)
        # parameters that the inner loop does not move reach F as the start itself
        still = {name: value for name, value in part(both, "theta").items() if name not in slope}
        start = as_leaves(phi)
        direct = pullback(problem.start(start).theta, still | {n: torch.zeros_like(v) for n, v in right.items()}, start)
        gradient = {name: both[f"phi/{name}"] + direct[name] - through[name] for name in phi}
        return Hypergradient(gradient, detached_outer(outer), diagnostics)

    @abstractmethod
    def solve(self, product: Product, right: Tensors) -> tuple[Tensors, dict[str, float]]:
        """Solve H^T q = right, given the product with H^T; return q and diagnostics."""


@dataclass(frozen=True)
class ConjugateGradientConfig:
    """Products with the Hessian, and the relative residual at which to stop before."""

    iterations: Annotated[int, Int(1, 200)] = 5
    tolerance: float = 1e-10
    damping: float = 0.0


@ESTIMATORS.register("conjugate_gradient")
class ConjugateGradient(Implicit):
    """Hestenes and Stiefel, 1952; H must be symmetric and positive definite.

    On negative curvature it keeps the iterate before it, and reports ``negative_curvature`` = 1.
    """

    Config = ConjugateGradientConfig
    config: ConjugateGradientConfig

    def solve(self, product: Product, right: Tensors) -> tuple[Tensors, dict[str, float]]:
        found = {name: torch.zeros_like(value) for name, value in right.items()}
        residual, direction = dict(right), dict(right)
        square = dot(residual, residual)
        goal = square * self.config.tolerance**2
        curvature_is_negative = False
        for _ in range(self.config.iterations):
            if square <= goal:
                break
            image = {n: value + self.config.damping * direction[n] for n, value in product(direction).items()}
            curvature = dot(direction, image)
            if curvature <= 0:
                curvature_is_negative = True
                break
            length = square / curvature
            found = {n: value + length * direction[n] for n, value in found.items()}
            residual = {n: value - length * image[n] for n, value in residual.items()}
            before, square = square, dot(residual, residual)
            direction = {n: residual[n] + square / before * value for n, value in direction.items()}
        return found, {"negative_curvature": float(curvature_is_negative)}


@dataclass(frozen=True)
class NeumannConfig:
    """Terms of the series after the first, and its step, which must be below 2 / |H|."""

    terms: Annotated[int, Int(0, 1000)] = 20
    alpha: float = 0.1

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise LearnerError(f"outer.hypergradient.alpha must be above 0, got {self.alpha}")


@ESTIMATORS.register("neumann")
class Neumann(Implicit):
    """q = alpha * sum_{k <= terms} (I - alpha H)^k v; equal to unrolling terms + 1 steps at theta*.

    Raises:
        LearnerError: The series diverges: alpha is above 2 / |H|.
    """

    Config = NeumannConfig
    config: NeumannConfig

    def solve(self, product: Product, right: Tensors) -> tuple[Tensors, dict[str, float]]:
        alpha = self.config.alpha
        term, total, first = dict(right), dict(right), float(norm(right))
        for _ in range(self.config.terms):
            image = product(term)
            term = {name: value - alpha * image[name] for name, value in term.items()}
            total = {name: value + term[name] for name, value in total.items()}
            length = float(norm(term))
            if not math.isfinite(length) or length > NEUMANN_DIVERGED * max(first, 1e-30):
                raise LearnerError(
                    f"outer.hypergradient.alpha: the Neumann series diverges at alpha={alpha} "
                    "(it must stay below 2 / |H|); use a smaller alpha, or conjugate_gradient"
                )
        return {name: alpha * value for name, value in total.items()}, {"last_term": float(norm(term))}
