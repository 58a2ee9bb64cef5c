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
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator

from metaloom.learners.domains import Int
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import (
    ESTIMATORS,
    Estimator,
    Hypergradient,
    Problem,
    detached_outer,
    require_last_step_only,
    solution,
)
from metaloom.learners.hypergradients.stationarity import UNSOLVED, drifts, needs_stationary, unsolved
from metaloom.learners.tensors import InnerState, Tensors, as_leaves, derivative, dot, norm, part, pullback, under

GROWING = 1.001  # a power iteration's last growth above which the series does not converge; below is rounding
DIVERGED = 1e6  # a term this many times as long as the first: no need to go on


class Curvature:
    """Products with the inner problem's Jacobian H = d slope / d inner at one point, and with its transpose.

    For the gradient of a loss H is symmetric; with example weights that depend on the losses it is not.
    """

    def __init__(self, slope: Tensors, inner: Tensors) -> None:
        self._slope, self._inner = slope, inner
        self._probe: tuple[Tensors, Tensors] | None = None

    def transposed(self, vector: Tensors) -> Tensors:
        """Return H^T vector: one pass backwards."""
        return pullback(self._slope, vector, self._inner, keep=True)

    def __call__(self, vector: Tensors) -> Tensors:
        """Return H vector, as the derivative of <H^T u, vector> by u, in which it is linear."""
        if self._probe is None:
            probe = as_leaves({name: torch.zeros_like(value) for name, value in self._slope.items()})
            names = [name for name, value in self._slope.items() if value.requires_grad]
            image = torch.autograd.grad(
                [self._slope[name] for name in names],
                list(self._inner.values()),
                [probe[name] for name in names],
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            self._probe = probe, dict(zip(self._inner, image, strict=True))
        probe, image_of = self._probe
        return pullback(image_of, vector, probe, keep=True)


class Implicit(Estimator):
    """What all solvers share: the solution, the right-hand side, and the product with dg/dphi."""

    blind = frozenset({"update"})
    at_solution = True
    stationary = True

    def estimate(self, problem: Problem, phi: Tensors) -> Hypergradient:
        require_last_step_only(problem, "an implicit gradient")
        state = solution(problem, phi)
        leaves, theta_leaves = as_leaves(phi), as_leaves(state.theta)
        outer = problem.outer(leaves, theta_leaves, problem.steps)
        both = derivative(outer.loss, under("phi", leaves) | under("theta", theta_leaves))

        slope = problem.stationarity(leaves, theta_leaves)
        self._require_rest(problem, phi, state, slope)
        right = {name: value for name, value in part(both, "theta").items() if name in slope}
        curvature = Curvature(slope, {name: theta_leaves[name] for name in slope})
        found, diagnostics = self.solve(curvature, right, problem.generator)
        residual = {name: right[name] - value for name, value in curvature.transposed(found).items()}
        diagnostics |= {
            "inner_gradient_norm": float(norm({name: value.detach() for name, value in slope.items()})),
            "residual": float(norm(residual) / norm(right).clamp_min(torch.finfo(outer.loss.dtype).tiny)),
            UNSOLVED: unsolved(outer.loss, dot(slope, found)),
        }
        # parameters that no inner step moves are the start itself, in the outer loss and in the inner gradient
        still = {name: leaf for name, leaf in theta_leaves.items() if name not in slope}
        through = pullback(slope, found, under("phi", leaves) | under("theta", still))
        at_start = {name: both[f"theta/{name}"] - through[f"theta/{name}"] for name in still}
        start = as_leaves(phi)
        starts = {name: value for name, value in problem.start(start).theta.items() if name in still}
        direct = pullback(starts, at_start, start)
        gradient = {name: both[f"phi/{name}"] + direct[name] - through[f"phi/{name}"] for name in phi}
        return Hypergradient(gradient, detached_outer(outer), diagnostics)

    def _require_rest(self, problem: Problem, phi: Tensors, state: InnerState, moving: Tensors) -> None:
        """Refuse an update whose fixed point is no root of the inner gradient; raises LearnerError."""
        fixed = {name: value.detach() for name, value in phi.items()}
        rest = InnerState(state.theta, {name: torch.zeros_like(value) for name, value in state.buffers.items()})
        penalty = problem.regularization(fixed, state.theta)
        every = {name: penalty.get(name, torch.zeros_like(state.theta[name])) for name in moving}
        if drifts(lambda at, gradient: problem.update(fixed, at, gradient, problem.steps - 1), rest, every):
            raise LearnerError(needs_stationary("an implicit estimator", "the update"))

    @abstractmethod
    def solve(
        self, curvature: Curvature, right: Tensors, generator: Generator | None
    ) -> tuple[Tensors, dict[str, float]]:
        """Solve H^T q = right; return q and diagnostics.

        Raises:
            LearnerError: The solver does not apply to this H, so that its q would be wrong.
        """


@dataclass(frozen=True)
class ConjugateGradientConfig:
    """Products with the Hessian, and the relative residual at which to stop before.

    Attributes:
        iterations: Products with the Hessian.
        tolerance: The relative residual at which it stops.
        damping: Added to the Hessian's diagonal.
    """

    iterations: Annotated[int, Int(1, 200)] = 5
    tolerance: float = 1e-10
    damping: float = 0.0


@ESTIMATORS.register("conjugate_gradient")
class ConjugateGradient(Implicit):
    """Hestenes and Stiefel, 1952; H must be symmetric and positive definite.

    Raises:
        LearnerError: H has negative curvature along a search direction.
    """

    Config = ConjugateGradientConfig
    config: ConjugateGradientConfig

    def solve(
        self, curvature: Curvature, right: Tensors, generator: Generator | None
    ) -> tuple[Tensors, dict[str, float]]:
        found = {name: torch.zeros_like(value) for name, value in right.items()}
        residual, direction = dict(right), dict(right)
        square = dot(residual, residual)
        goal = square * self.config.tolerance**2
        iterations = 0
        for _ in range(self.config.iterations):
            if square <= goal:
                break
            image = curvature.transposed(direction)
            image = {name: value + self.config.damping * direction[name] for name, value in image.items()}
            bend = dot(direction, image)
            rounding = torch.finfo(bend.dtype).eps * norm(direction) * norm(image)
            if bend < -rounding:
                raise LearnerError(_negative(float(bend / dot(direction, direction)), self.config.damping))
            if bend <= rounding:  # flat: nothing more can be solved along it
                break
            length = square / bend
            found = {n: value + length * direction[n] for n, value in found.items()}
            residual = {n: value - length * image[n] for n, value in residual.items()}
            before, square = square, dot(residual, residual)
            direction = {n: residual[n] + square / before * value for n, value in direction.items()}
            iterations += 1
        return found, {"iterations": float(iterations)}


def _negative(bend: float, damping: float) -> str:
    return (
        f"outer.hypergradient: conjugate_gradient met negative curvature ({bend:.3g}, with damping {damping:g}): the "
        "inner problem is not convex here, so that the implicit gradient would be wrong; raise inner.proximal or "
        "outer.hypergradient.damping, take more inner steps, or use normal_equations or adjoint"
    )


@dataclass(frozen=True)
class NeumannConfig:
    """Terms of the series after the first, its step, which must be below 2 / |H|, and the check of it.

    Attributes:
        terms: Terms after the first, one product each.
        alpha: The step.
        power_iterations: Further products, which go on from the last term as a power iteration of I - alpha H.
    """

    terms: Annotated[int, Int(0, 1000)] = 20
    alpha: float = 0.1
    power_iterations: Annotated[int, Int(0, 100)] = 3

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise LearnerError(f"outer.hypergradient.alpha must be above 0, got {self.alpha}")


@ESTIMATORS.register("neumann")
class Neumann(Implicit):
    """q = alpha * sum_{k <= terms} (I - alpha H)^k v; equal to unrolling terms + 1 steps at theta*.

    The terms are a power iteration of I - alpha H: for a symmetric H each is longer by a factor that never falls, so
    one that grows at the end shows an eigenvalue of H above 2 / alpha, or below 0.

    Raises:
        LearnerError: The series diverges: alpha is above 2 / |H|, or H has negative curvature.
    """

    Config = NeumannConfig
    config: NeumannConfig

    def solve(
        self, curvature: Curvature, right: Tensors, generator: Generator | None
    ) -> tuple[Tensors, dict[str, float]]:
        alpha, last = self.config.alpha, self.config.terms
        term, total, growth = dict(right), dict(right), 0.0
        first = length = kept = float(norm(right))
        negligible = float(torch.finfo(next(iter(right.values())).dtype).eps) * first
        for index in range(last + self.config.power_iterations):
            if length <= negligible or length > DIVERGED * first:
                break
            image = curvature.transposed(term)
            term = {name: value - alpha * image[name] for name, value in term.items()}
            before, length = length, float(norm(term))
            growth = length / before
            if index < last:
                total, kept = {name: value + term[name] for name, value in total.items()}, length
        if not math.isfinite(length) or growth > GROWING:
            raise LearnerError(
                f"outer.hypergradient.alpha: the Neumann series diverges at alpha={alpha}: its last term is "
                f"{growth:.3g} times as long as the one before (it must stay below 2 / |H|, the inner problem convex); "
                "use a smaller alpha, a larger inner.proximal, or conjugate_gradient"
            )
        return {name: alpha * value for name, value in total.items()}, {"last_term": kept, "growth": growth}
