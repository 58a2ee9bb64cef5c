r"""The hypergradient at the inner solution, whatever path led there.

Rajeswaran et al., 2019 (iMAML), https://arxiv.org/abs/1909.04630, lemma 1, for the proximal inner
problem; Lorraine et al., 2020, https://arxiv.org/abs/1911.02590, for the general one. Where the inner
gradient g(theta*, phi) vanishes,

    dF/dphi = dL/dphi - (dg/dphi)^T q,    H^T q = v,    H = dg/dtheta,  v = dL/dtheta*

With a proximal inner problem, g = grad L_support + lambda (theta - phi), this is iMAML's
(I + H_support / lambda)^-1 v. It is as good as theta* is: the norm of the inner gradient and the
residual of the linear solve are always reported. Memory: one inner graph, whatever the steps.

The update must rest where its gradient and its own penalty (``Problem.regularization``) cancel. Decoupled weight decay
does not: ``solvers/rules.py`` refuses such a rule once, when an estimator is built, and not in every outer step.

``normal_equations`` is conjugate gradient on the normal equations (Hestenes and Stiefel, 1952, section 10), as in
hypertorch's ``CG_normaleq`` (Grazzi et al., 2020, https://arxiv.org/abs/2006.16218):

    H^T q = v   <=>   (H H^T) q = H v

H H^T is positive semi-definite whatever H is: example weights that depend on the losses make H asymmetric, and a
saddle makes it indefinite. Twice the products of ``conjugate_gradient`` an iteration, and the square of its
condition number.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from metaloom.learners.domains import Bounds, Int
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import ESTIMATORS, Estimator, Hypergradient, Problem, solution
from metaloom.learners.tensors import InnerState, Tensors, as_leaves, dot, norm, part, pullback, pullbacks, under

GROWING = 1.001  # a power iteration's last growth above which the series does not converge; below is rounding
DIVERGED = 1e6  # a term this many times as long as the first: no need to go on
UNSOLVED = "unsolved"  # the diagnostic of every estimator at the inner solution; see ``unsolved``
Solved = tuple[Tensors, dict[str, float]]


def unsolved(outer_loss: Tensor, change: Tensor) -> float:
    """Return by which share the outer loss would change if the inner problem were solved to its end, to first order.

    With the adjoint solution q (H^T q = dL/dtheta) the change is -<q, inner gradient>. The number has no unit: it does
    not depend on the scale of either loss.
    """
    tiny = torch.finfo(outer_loss.dtype).tiny
    return float(change.detach().abs() / outer_loss.detach().abs().clamp_min(tiny))


class Curvature:
    """Products with the inner problem's Jacobian H = d gradient / d theta at one point, and with its transpose.

    For the gradient of a loss H is symmetric; with example weights that depend on the losses it is not.
    """

    def __init__(self, gradient: Tensors, theta: Tensors) -> None:
        self._gradient, self._theta = gradient, theta
        self._transpose: tuple[Tensors, Tensors] | None = None

    def transposed(self, vector: Tensors) -> Tensors:
        """Return H^T vector: one pass backwards."""
        return pullback(self._gradient, vector, self._theta, keep=True)

    def __call__(self, vector: Tensors) -> Tensors:
        """Return H vector, as the derivative of <H^T u, vector> by u, in which it is linear."""
        if self._transpose is None:
            point = as_leaves({name: torch.zeros_like(value) for name, value in self._gradient.items()})
            self._transpose = point, pullback(self._gradient, point, self._theta, differentiable=True)
        point, image_at = self._transpose
        return pullback(image_at, vector, point, keep=True)


class Implicit(Estimator):
    """What all solvers share: the solution, the right-hand side, and the product with dg/dphi."""

    blind = frozenset({"update"})
    last_step_only = True
    needs_steps = True
    at_solution = True
    stationary = True

    def estimate(self, problem: Problem, phi: Tensors) -> Hypergradient:
        state = solution(problem, phi)
        outer, by_phi, by_state = problem.outer_gradients(phi, InnerState(state.theta, {}))
        by_theta = part(by_state, "theta")
        leaves, theta = as_leaves(phi), as_leaves(state.theta)
        inner_gradient = problem.stationarity(leaves, theta)
        right = {name: value for name, value in by_theta.items() if name in inner_gradient}
        curvature = Curvature(inner_gradient, {name: theta[name] for name in inner_gradient})
        adjoint, diagnostics = self.solve(curvature, right, problem)
        residual = {name: right[name] - value for name, value in curvature.transposed(adjoint).items()}
        diagnostics |= {
            "inner_gradient_norm": float(norm(inner_gradient).detach()),
            "residual": float(norm(residual) / norm(right).clamp_min(torch.finfo(outer.loss.dtype).tiny)),
            UNSOLVED: unsolved(outer.loss, dot(inner_gradient, adjoint)),
        }
        # parameters that no inner step moves are the start itself, in the outer loss and in the inner gradient
        still = {name: leaf for name, leaf in theta.items() if name not in inner_gradient}
        through_phi, through_still = pullbacks(inner_gradient, adjoint, leaves, still)
        at_start = {name: by_theta[name] - value for name, value in through_still.items()}
        direct = problem.start_gradient(phi, under("theta", at_start))
        gradient = {name: by_phi[name] + direct[name] - through_phi[name] for name in phi}
        return Hypergradient(gradient, outer, diagnostics)

    @abstractmethod
    def solve(self, curvature: Curvature, right: Tensors, problem: Problem) -> Solved:
        """Solve H^T q = right; return q and diagnostics, or raise LearnerError where the solver does not apply to H."""


@dataclass(frozen=True)
class ConjugateGradientConfig:
    """How long H q = v is solved.

    Attributes:
        iterations: Products with the Hessian.
        tolerance: The relative residual at which it stops before.
        damping: Added to the Hessian's diagonal.
    """

    iterations: Annotated[int, Int(1, 200)] = 5
    tolerance: float = 1e-10
    damping: float = 0.0


@ESTIMATORS.register("conjugate_gradient")
class ConjugateGradient(Implicit):
    """Hestenes and Stiefel, 1952; raises LearnerError if H (symmetric) has negative curvature along a direction."""

    Config = ConjugateGradientConfig
    config: ConjugateGradientConfig

    def solve(self, curvature: Curvature, right: Tensors, problem: Problem) -> Solved:
        adjoint = {name: torch.zeros_like(value) for name, value in right.items()}
        residual, direction, damping = dict(right), dict(right), self.config.damping
        square, iterations = dot(residual, residual), 0
        goal = square * self.config.tolerance**2
        while iterations < self.config.iterations and square > goal:
            image = curvature.transposed(direction)
            image = {name: value + damping * direction[name] for name, value in image.items()}
            bend = dot(direction, image)
            rounding = torch.finfo(bend.dtype).eps * norm(direction) * norm(image)
            if bend < -rounding:
                raise LearnerError(
                    "outer.hypergradient: conjugate_gradient met negative curvature "
                    f"({float(bend / dot(direction, direction)):.3g}, with damping {damping:g}): the inner problem is "
                    "not convex here, so that the implicit gradient would be wrong; raise inner.proximal or "
                    "outer.hypergradient.damping, take more inner steps, or use normal_equations or adjoint"
                )
            if bend <= rounding:  # flat: nothing more can be solved along it
                break
            length = square / bend
            adjoint = {n: value + length * direction[n] for n, value in adjoint.items()}
            residual = {n: value - length * image[n] for n, value in residual.items()}
            before, square = square, dot(residual, residual)
            direction = {n: residual[n] + square / before * value for n, value in direction.items()}
            iterations += 1
        return adjoint, {"iterations": float(iterations)}


@dataclass(frozen=True)
class NeumannConfig:
    """The series, and the check that it converges.

    Attributes:
        terms: Terms after the first, one product each.
        alpha: The step, which must be below 2 / |H|.
        power_iterations: Further products, which go on from the last term as a power iteration of I - alpha H.
    """

    terms: Annotated[int, Int(0, 1000)] = 20
    alpha: Annotated[float, Bounds(above=0)] = 0.1
    power_iterations: Annotated[int, Int(0, 100)] = 3


@ESTIMATORS.register("neumann")
class Neumann(Implicit):
    """q = alpha * sum_{k <= terms} (I - alpha H)^k v; equal to unrolling terms + 1 steps at theta*.

    The terms are a power iteration of I - alpha H: for a symmetric H each is longer by a factor that never falls, so
    one that grows at the end shows an eigenvalue of H above 2 / alpha, or below 0: the series diverges, and is refused.
    """

    Config = NeumannConfig
    config: NeumannConfig

    def solve(self, curvature: Curvature, right: Tensors, problem: Problem) -> Solved:
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


@dataclass(frozen=True)
class NormalEquationsConfig:
    """How long the least-squares problem is solved.

    Attributes:
        iterations: Each of two products.
        tolerance: The relative residual (of H v) at which it stops before.
    """

    iterations: Annotated[int, Int(1, 500)] = 10
    tolerance: float = 1e-12


@ESTIMATORS.register("normal_equations")
class NormalEquations(Implicit):
    """Least squares |H^T q - v|^2 by conjugate gradient, never forming H H^T."""

    Config = NormalEquationsConfig
    config: NormalEquationsConfig

    def solve(self, curvature: Curvature, right: Tensors, problem: Problem) -> Solved:
        adjoint = {name: torch.zeros_like(value) for name, value in right.items()}
        residual = dict(right)  # v - H^T q
        descent = curvature(residual)  # H (v - H^T q): minus the gradient of |H^T q - v|^2 / 2
        direction, square = dict(descent), dot(descent, descent)
        goal, iterations = square * self.config.tolerance**2, 0
        while iterations < self.config.iterations and square > goal:
            image = curvature.transposed(direction)
            size = dot(image, image)
            if size == 0:
                break
            length = square / size
            adjoint = {n: value + length * direction[n] for n, value in adjoint.items()}
            residual = {n: value - length * image[n] for n, value in residual.items()}
            descent = curvature(residual)
            before, square = square, dot(descent, descent)
            direction = {n: descent[n] + square / before * value for n, value in direction.items()}
            iterations += 1
        return adjoint, {"iterations": float(iterations)}
