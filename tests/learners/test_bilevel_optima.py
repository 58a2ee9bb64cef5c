"""Descending the exact hypergradient ends where the outer objective's minimum is known to be."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from metaloom.learners import ESTIMATORS
from metaloom.learners.hypergradients.problem import Hypergradient, Problem
from metaloom.testing.problems import Known, as_problem, estimate, normal, positive_definite, quadratic

STEPS = 40  # every inner loop here contracts by 0.5 a step or faster: 0.5^40 is 9e-13
SAMPLES = 24
GOLDEN = (math.sqrt(5) - 1) / 2
# what solves up to 24 unknowns, whose curvature is between 0.6 and 3, to rounding
EXACT: dict[str, dict[str, Any]] = {
    "unroll": {},
    "adjoint": {},
    "checkpointed": {},
    "forward": {},
    "conjugate_gradient": {"iterations": 40},
    "normal_equations": {"iterations": 60},
    "neumann": {"terms": 80, "alpha": 0.5},
    "fixed_point": {"iterations": 60},
    "nystrom": {"rank": 24, "rho": 1e-12},
}


def test_every_exact_estimator_descends_here() -> None:
    assert {kind for kind in ESTIMATORS if ESTIMATORS[kind].exact} <= set(EXACT)


def descend(kind: str, problem: Problem, start: Tensor) -> tuple[Tensor, Hypergradient]:
    """Follow an estimator's hypergradient downhill, by Barzilai and Borwein's steps: they need no curvature.

    Returns:
        Where the hypergradient vanishes, and what the estimator says there.
    """

    def at(phi: Tensor) -> Hypergradient:
        return estimate(kind, Known(problem, {"phi": phi}, start, start), **EXACT[kind])

    phi, found, rate = start, at(start), 0.1
    for _ in range(100):
        slope = found.gradient["phi"]
        if slope.norm() < 1e-10:
            return phi, found
        moved = phi - rate * slope
        found = at(moved)
        way, bend = moved - phi, found.gradient["phi"] - slope
        phi, rate = moved, float(way.square().sum() / (way @ bend).abs())
    raise AssertionError(f"{kind}: after 100 steps the hypergradient is {float(found.gradient['phi'].norm()):.1e}")


def quadratic_optimum(size: int, seed: int) -> tuple[Tensor, float]:
    """Return the minimiser and the minimum of ``quadratic``'s outer objective.

    With theta*(phi) = M phi, M = A^-1 C, it is (M phi - b)'B(M phi - b)/2 + phi'D phi/2: the gradient vanishes at
    phi* = (M'BM + D)^-1 M'B b, where b'B(b - M phi*)/2 is left.
    """
    curvature, judge, own = (positive_definite(size, seed + i) for i in range(3))
    reach = torch.linalg.solve(curvature, normal(size, size, seed=seed + 3))
    target = normal(size, seed=seed + 4)
    best = torch.linalg.solve(reach.T @ judge @ reach + own, reach.T @ judge @ target)
    return best, float(target @ judge @ (target - reach @ best) / 2)


@pytest.mark.parametrize("kind", EXACT)
def test_the_quadratic_problem_is_minimised(kind: str) -> None:
    known = quadratic(STEPS, rate=0.5, size=3)
    best, minimum = quadratic_optimum(3, seed=0)
    phi, found = descend(kind, known.problem, known.phi["phi"])
    torch.testing.assert_close(phi, best, rtol=0, atol=1e-9)
    assert float(found.outer.loss) == pytest.approx(minimum, rel=1e-12)


def regression(features: int) -> tuple[Tensor, Tensor]:
    """Draw inputs [SAMPLES, features], whose X'X / n has eigenvalues from 0.8 to 1.2, and targets with noise of 1."""
    basis = torch.linalg.qr(normal(SAMPLES, features, seed=0))[0]
    x = basis * (SAMPLES * torch.linspace(0.8, 1.2, features, dtype=torch.float64)).sqrt()
    return x, x @ normal(features, seed=5) + normal(SAMPLES, seed=6)


def leave_one_out(x: Tensor, y: Tensor) -> Problem:
    """One ridge regression for each sample left out, all of the penalty exp(phi), judged by what was left out.

    f = sum_i sum_(j != i) (x_j theta_i - y_j)^2 / 2n + exp(phi) |theta_i|^2 / 2,  F = sum_i (x_i theta_i - y_i)^2 / 2n
    """
    count, features = x.shape
    kept = 1 - torch.eye(count, dtype=torch.float64)  # [left out, sample]

    def residual(theta: Tensor) -> Tensor:
        return theta.reshape(count, features) @ x.T - y  # [left out, sample]

    def loss(phi: Tensor, theta: Tensor) -> Tensor:
        return (kept * residual(theta).square()).sum() / (2 * count) + (phi.exp() * theta.square()).sum() / 2

    def slope(phi: Tensor, theta: Tensor) -> Tensor:
        return (kept * residual(theta) @ x).flatten() / count + phi.exp() * theta

    def outer(phi: Tensor, theta: Tensor) -> Tensor:
        return residual(theta).diagonal().square().mean() / 2

    return as_problem(loss, slope, outer, count * features, steps=STEPS, rate=0.8)


def cross_validated(x: Tensor, y: Tensor) -> Problem:
    """One ridge regression on all samples, judged by generalized cross-validation: phi is in F itself too.

    f = |X theta - y|^2 / 2n + exp(phi) |theta|^2 / 2,  F = |X theta - y|^2 / (2n (1 - tr H(phi) / n)^2)
    """
    count, features = x.shape
    spectrum = torch.linalg.eigvalsh(x.T @ x / count)

    def loss(phi: Tensor, theta: Tensor) -> Tensor:
        return (x @ theta - y).square().mean() / 2 + (phi.exp() * theta.square()).sum() / 2

    def slope(phi: Tensor, theta: Tensor) -> Tensor:
        return x.T @ (x @ theta - y) / count + phi.exp() * theta

    def outer(phi: Tensor, theta: Tensor) -> Tensor:
        used = (spectrum / (spectrum + phi.exp())).sum() / count
        return (x @ theta - y).square().mean() / (2 * (1 - used).square())

    return as_problem(loss, slope, outer, features, steps=STEPS, rate=0.8)


def criterion(x: Tensor, y: Tensor, *, generalized: bool) -> Callable[[Tensor], Tensor]:
    """Return phi to the closed form of F: no regression is solved again, H = U diag(s^2 / (s^2 + n exp(phi))) U'.

    Leave-one-out is the mean of ((y - H y)_i / (1 - H_ii))^2 / 2; the generalized one has tr H / n for every H_ii
    (Golub, Heath and Wahba, 1979, https://doi.org/10.1080/00401706.1979.10489751).
    """
    left, scale, _ = torch.linalg.svd(x, full_matrices=False)

    def value(phi: Tensor) -> Tensor:
        shrink = scale.square() / (scale.square() + len(y) * phi.exp())
        leverage = left.square() @ shrink
        leverage = leverage.mean() if generalized else leverage
        return ((y - left @ (shrink * (left.T @ y))) / (1 - leverage)).square().mean() / 2

    return value


def golden_section(value: Callable[[Tensor], Tensor], low: float, high: float) -> float:
    """Return the minimiser of a unimodal function, to the 1e-8 that its values can tell apart."""
    while high - low > 1e-8:
        inner, outer = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        if value(torch.tensor([inner], dtype=torch.float64)) < value(torch.tensor([outer], dtype=torch.float64)):
            high = outer
        else:
            low = inner
    return (low + high) / 2


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize(("generalized", "features"), [(False, 1), (True, 3)])
def test_the_ridge_penalty_found_is_the_best_by_cross_validation(kind: str, generalized: bool, features: int) -> None:
    x, y = regression(features)
    value = criterion(x, y, generalized=generalized)
    best = golden_section(value, -6.0, 2.0)
    assert -5 < best < 1  # not at an end of the bracket
    problem = cross_validated(x, y) if generalized else leave_one_out(x, y)
    phi, found = descend(kind, problem, torch.tensor([-1.0], dtype=torch.float64))
    assert float(phi) == pytest.approx(best, abs=1e-6)  # as near as golden section itself comes
    # the closed form's own derivative is sharper: it vanishes where the descent ended
    derivative = torch.func.grad(value)(phi[0])
    assert float(derivative.abs()) < 1e-9
    assert float(found.outer.loss) == pytest.approx(float(value(phi)), rel=1e-12)
