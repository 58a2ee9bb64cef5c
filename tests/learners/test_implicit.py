"""The implicit estimators against closed forms, their diagnostics, and what they refuse."""

import pytest
import torch
from torch import Tensor

from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.tensors import Tensors
from metaloom.testing.problems import (
    SINGLE,
    Known,
    as_problem,
    begun,
    built,
    episode_of,
    errors_by_slot,
    estimate,
    normal,
    quadratic,
    relative_error,
    ridge,
    seeded,
)

CONVERGED = 400


def linear_solvers() -> list[tuple[str, dict[str, float]]]:
    return [
        ("conjugate_gradient", {"iterations": 40}),
        ("neumann", {"terms": 400, "alpha": 0.3}),
        ("normal_equations", {"iterations": 60}),
        ("nystrom", {"rank": 12, "rho": 1e-12}),
        ("fixed_point", {"iterations": 400}),
    ]


@pytest.mark.parametrize(("kind", "settings"), linear_solvers())
@pytest.mark.parametrize("seed", [0, 10])
def test_quadratic_closed_form(kind: str, settings: dict[str, float], seed: int) -> None:
    known = quadratic(CONVERGED, seed=seed)
    found = estimate(kind, known, **settings)
    assert relative_error(found.gradient["phi"], known.exact) < 1e-10
    assert found.diagnostics["residual"] < 1e-10
    assert found.diagnostics["inner_gradient_norm"] < 1e-10


@pytest.mark.parametrize(("kind", "settings"), linear_solvers())
@pytest.mark.parametrize("per_feature", [True, False])
def test_ridge_closed_form(kind: str, settings: dict[str, float], per_feature: bool) -> None:
    known = ridge(CONVERGED, per_feature=per_feature)
    assert relative_error(estimate(kind, known, **settings).gradient["phi"], known.exact) < 1e-10


def test_conjugate_gradient_error_shrinks_with_iterations() -> None:
    known = ridge(CONVERGED, per_feature=True)
    errors = [
        relative_error(estimate("conjugate_gradient", known, iterations=k).gradient["phi"], known.exact)
        for k in (1, 3, 6, 13)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-10


def test_neumann_error_shrinks_as_terms_grow() -> None:
    known = quadratic(CONVERGED)
    errors = [
        relative_error(estimate("neumann", known, terms=k, alpha=0.3).gradient["phi"], known.exact)
        for k in (1, 5, 25, 60)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6 * errors[0]


def test_an_unconverged_inner_loop_is_reported() -> None:
    few, many = (estimate("conjugate_gradient", quadratic(steps), iterations=40) for steps in (3, CONVERGED))
    assert few.diagnostics["inner_gradient_norm"] > 1e-3
    assert many.diagnostics["inner_gradient_norm"] < 1e-10


def test_a_cut_solve_reports_its_residual() -> None:
    found = estimate("conjugate_gradient", ridge(CONVERGED, per_feature=True), iterations=2)
    assert 1e-3 < found.diagnostics["residual"] < 1


@pytest.mark.parametrize("alpha", [0.8, 5.0])
def test_neumann_says_that_it_diverges(alpha: float) -> None:
    with pytest.raises(LearnerError, match=r"alpha: the Neumann series diverges at alpha=.*below 2 / \|H\|"):
        estimate("neumann", quadratic(CONVERGED), terms=400, alpha=alpha)


def saddle() -> Known:
    """A stationary inner point whose Hessian has the eigenvalues 2, 1 and -1, with v in all of them."""
    hessian = torch.diag(torch.tensor([2.0, 1.0, -1.0], dtype=torch.float64))

    def loss(phi: Tensor, theta: Tensor) -> Tensor:
        return theta @ hessian @ theta / 2

    problem = as_problem(loss, lambda p, t: hessian @ t, lambda p, t: t.sum() + p.sum(), 3, steps=1, rate=0.1)
    return Known(problem, {"phi": normal(3, seed=0)}, torch.zeros(3), torch.zeros(3))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("conjugate_gradient", {"iterations": 5}), ("nystrom", {"rank": 3, "rho": 0.1})],
)
def test_negative_curvature_is_refused(kind: str, settings: dict[str, float]) -> None:
    with pytest.raises(LearnerError, match=r"met negative curvature .*raise inner\.proximal"):
        estimate(kind, saddle(), **settings)


def test_neumann_refuses_negative_curvature_too() -> None:
    with pytest.raises(LearnerError, match=r"diverges.*or conjugate_gradient"):
        estimate("neumann", saddle(), terms=20, alpha=0.1)


def test_normal_equations_solve_at_a_saddle() -> None:
    """dL/dtheta = (1, 1, 1), H = diag(2, 1, -1): q = (1/2, 1, -1), and nothing of it reaches phi."""
    found = estimate("normal_equations", saddle(), iterations=10)
    assert found.diagnostics["residual"] < 1e-12


@pytest.mark.parametrize("terms", [2, 6])
def test_a_few_terms_are_enough_to_see_that_neumann_diverges(terms: int) -> None:
    """The step is 2.2 / |H|: six terms are at most thrice as long as the first, which no threshold would notice."""
    with pytest.raises(LearnerError, match="diverges"):
        estimate("neumann", quadratic(CONVERGED), terms=terms, alpha=2.2 / 3, power_iterations=12)


def test_a_good_neumann_step_passes_the_check() -> None:
    found = estimate("neumann", quadratic(CONVERGED), terms=6, alpha=1.9 / 3, power_iterations=30)
    assert found.diagnostics["growth"] < 1


def test_fixed_point_says_that_it_diverges() -> None:
    with pytest.raises(LearnerError, match=r"fixed_point diverges.*lower learner\.update\.rate"):
        estimate("fixed_point", quadratic(5, rate=0.8), iterations=30)


def test_fixed_point_is_exact_with_momentum() -> None:
    """The fixed point of the whole update, buffers included."""
    settings = {
        "architecture": {"kind": "mlp", "hidden": []},
        "initialization": {"kind": "learned"},
        "weighting": {"kind": "meta_weight_net", "hidden": 4},
        "update": {"rate": 0.2, "momentum": 0.5, "steps": 100},
    }
    learner = built(settings, SINGLE, inner={"proximal": 1.0}, estimator={"kind": "fixed_point", "iterations": 200})
    assert max(errors_by_slot(learner, [episode_of(SINGLE, 1)], directions=1).values()) < 1e-8


def test_nystrom_of_full_rank_is_the_damped_solve() -> None:
    known = ridge(CONVERGED, per_feature=True)
    full = estimate("nystrom", known, rank=12, rho=0.1).gradient["phi"]
    damped = estimate("conjugate_gradient", known, iterations=40, damping=0.1).gradient["phi"]
    assert relative_error(full, damped) < 1e-10


def test_nystrom_error_is_large_below_full_rank_and_the_residual_says_so() -> None:
    """A full-rank ridge is what the approximation is bad at; it is not hidden."""
    known = ridge(CONVERGED, per_feature=True)
    low, full = (estimate("nystrom", known, rank=rank, rho=1e-3) for rank in (4, 12))
    assert relative_error(low.gradient["phi"], known.exact) > 1
    assert low.diagnostics["residual"] > 1
    assert relative_error(full.gradient["phi"], known.exact) < 1e-2


def test_damping_solves_the_damped_system() -> None:
    plain, damped = quadratic(CONVERGED), quadratic(CONVERGED)
    found = estimate("conjugate_gradient", damped, iterations=40, damping=1e6).gradient["phi"]
    direct = estimate("direct", plain).gradient["phi"]
    assert relative_error(found, direct) < 1e-4  # an infinitely damped solve leaves the direct part alone


@pytest.mark.parametrize("seed", [0, 1])
def test_imaml_is_the_equation_of_its_paper(seed: int) -> None:
    """dF/dphi = (I + H/lambda)^-1 grad L_query, on a linear regression whose Hessian is constant."""
    task, strength = TaskShape("regression", (3,), 1), 2.0
    learner = built(
        {
            "architecture": {"kind": "mlp", "hidden": []},
            "initialization": {"kind": "learned"},
            "update": {"kind": "sgd", "rate": 0.1, "steps": 400},
        },
        task,
        inner={"proximal": strength},
        estimator={"kind": "conjugate_gradient", "iterations": 50},
    )
    phi, state = begun(learner, seed)
    episode = episode_of(task, seed + 1)
    found = learner.meta_step(phi, state, [episode], seeded(0))
    exact = _imaml(phi, episode.support_x, episode.support_y, episode.query_x, episode.query_y, strength)
    got = torch.cat([found.gradient[f"initialization/head.{part}"].flatten() for part in ("weight", "bias")])
    assert relative_error(got, exact) < 1e-10


def _imaml(phi: Tensors, x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor, strength: float) -> Tensor:
    """Solve the proximal regression exactly, and the outer linear system too."""

    def design(inputs: Tensor) -> Tensor:
        return torch.cat([inputs, torch.ones(len(inputs), 1, dtype=torch.float64)], 1)

    start = torch.cat([phi["initialization/head.weight"].flatten(), phi["initialization/head.bias"]])
    hessian, eye = 2 * design(x).T @ design(x) / len(x), torch.eye(len(start), dtype=torch.float64)
    right = 2 * design(x).T @ y[:, 0] / len(x) + strength * start
    theta = torch.linalg.solve(hessian + strength * eye, right)
    slope = 2 * design(query_x).T @ (design(query_x) @ theta - query_y[:, 0]) / len(query_x)
    return torch.linalg.solve(eye + hessian / strength, slope)
