"""One contract for every estimator: what it claims to see it sees, and it leaves nothing behind."""

from typing import Any

import pytest
import torch

from metaloom.learners import ESTIMATORS, SLOTS
from metaloom.learners.hypergradients.problem import ValueEstimator
from tests.support.bilevel import (
    IMAGES,
    SINGLE,
    SMOOTH,
    begun,
    built,
    episode_of,
    errors_by_slot,
    estimate,
    quadratic,
    relative_error,
    seeded,
)
from tests.support.registry_rows import KNOWLEDGE

# estimator: settings, and the largest relative error to the exact hypergradient of a converged quadratic (None: biased)
ROWS: dict[str, tuple[dict[str, Any], float | None]] = {
    "unroll": ({}, 1e-8),
    "adjoint": ({}, 1e-8),
    "conjugate_gradient": ({"iterations": 30}, 1e-8),
    "neumann": ({"terms": 300, "alpha": 0.3}, 1e-8),
    "checkpointed": ({}, 1e-8),
    "forward": ({}, 1e-8),
    "normal_equations": ({"iterations": 30}, 1e-8),
    "fixed_point": ({"iterations": 200}, 1e-8),
    "nystrom": ({"rank": 5, "rho": 1e-10}, 1e-8),  # exact for H + rho I
    "truncated": ({"last": 3}, None),
    "evolution_strategies": ({"pairs": 8}, None),
    "persistent_evolution_strategies": ({"pairs": 8}, None),
    "one_step": ({}, None),
    "finite_difference": ({}, None),
    "first_order": ({}, None),
    "direct": ({}, None),
    "segments": ({"length": 5}, None),
    "displacement": ({}, None),
}
# what solves a system of a few tens of numbers, whose curvature is between 1 and 3
SOLVERS: dict[str, dict[str, Any]] = {
    "conjugate_gradient": {"iterations": 60},
    "normal_equations": {"iterations": 100},
    "neumann": {"terms": 120, "alpha": 0.3},
    "fixed_point": {"iterations": 120},
    "nystrom": {"rank": 60, "rho": 1e-7},
}


def test_every_estimator_has_a_row() -> None:
    assert set(ROWS) == set(ESTIMATORS)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_it_names_only_slots_that_exist(kind: str) -> None:
    known = {*SLOTS, "normalization", "*"}
    assert ESTIMATORS[kind].sees <= known
    assert ESTIMATORS[kind].blind <= known


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_exact_estimators_are_exact_and_biased_ones_are_not(kind: str) -> None:
    settings, bound = ROWS[kind]
    known = quadratic(300)
    found = estimate(kind, known, **settings)
    error = relative_error(found.gradient["phi"], known.exact)
    assert error > 1e-3 if bound is None else error < bound
    assert not found.gradient["phi"].requires_grad
    assert not found.outer.loss.requires_grad
    assert float(found.outer.loss) == pytest.approx(
        float(known.problem.outer(known.phi, {"theta": known.solution}, 0).loss)
    )


@pytest.mark.parametrize("slot", KNOWLEDGE)
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_what_it_claims_to_see_gets_a_finite_signal(kind: str, slot: str) -> None:
    if not ESTIMATORS[kind].gives_signal(slot):
        pytest.skip(f"{kind} is refused for {slot}")
    task = IMAGES if slot == "architecture" else SINGLE
    settings = {"architecture": SMOOTH, "update": {"rate": 0.1, "steps": 2}, **KNOWLEDGE[slot]}
    # two steps from the start the inner problem need not be convex
    careful: dict[str, dict[str, Any]] = {"neumann": {"alpha": 0.05}, "conjugate_gradient": {"damping": 3.0}}
    chosen = {"kind": kind, **careful.get(kind, {})}
    mode = "online" if ESTIMATORS[kind].online_only else "episodic"
    if mode == "online" and slot == "initialization":
        pytest.skip("an online inner loop starts once")
    learner = built(settings, task, inner={"proximal": 1.0, "mode": mode}, estimator=chosen)
    phi, state = begun(learner)
    before = {name: value.clone() for name, value in phi.items()}
    seen = learner.meta_step(phi, state, [episode_of(task, 0)], seeded(0))
    assert set(seen.gradient) == set(phi)
    for name, value in seen.gradient.items():
        assert torch.isfinite(value).all(), name
        assert float(value.abs().max()) > 0, name
        assert torch.equal(phi[name], before[name])
    assert learner.estimator == kind


@pytest.mark.parametrize("slot", ["weighting", "loss", "data"])
@pytest.mark.parametrize("kind", SOLVERS)
def test_implicit_is_exact_for_every_slot_at_a_solution(kind: str, slot: str) -> None:
    """A proximal linear classifier is strongly convex: its solution does not depend on the path there."""
    if slot == "weighting" and kind in ("conjugate_gradient", "neumann", "nystrom"):
        pytest.skip("weights that depend on the loss make the inner gradient no gradient: H is not symmetric")
    settings = {
        "architecture": {"kind": "mlp", "hidden": []},
        "update": {"rate": 0.3, "steps": 60},
        **KNOWLEDGE[slot],
        "initialization": {"kind": "learned"},
    }
    learner = built(settings, SINGLE, inner={"proximal": 1.0}, estimator={"kind": kind, **SOLVERS[kind]})
    bound = 1e-6 if kind == "nystrom" else 1e-8
    assert max(errors_by_slot(learner, [episode_of(SINGLE, 1)], directions=1).values()) < bound


@pytest.mark.parametrize("kind", SOLVERS)
def test_implicit_sees_the_start_of_what_no_inner_step_moves(kind: str) -> None:
    """ANIL's body is part of the inner gradient too, not of the query pass alone."""
    settings = {
        "architecture": SMOOTH,
        "initialization": {"kind": "learned"},
        "update": {"rate": 0.3, "steps": 80, "adapt": "head"},
    }
    learner = built(settings, SINGLE, inner={"proximal": 1.0}, estimator={"kind": kind, **SOLVERS[kind]})
    bound = 1e-6 if kind == "nystrom" else 1e-8
    assert max(errors_by_slot(learner, [episode_of(SINGLE, 1)]).values()) < bound


@pytest.mark.parametrize("kind", SOLVERS)
def test_an_implicit_gradient_says_how_far_it_is_from_solved(kind: str) -> None:
    diagnostics = estimate(kind, quadratic(3), **SOLVERS[kind]).diagnostics
    assert diagnostics["inner_gradient_norm"] > 1e-3
    assert 0 <= diagnostics["residual"] < 1e-3


def test_every_implicit_estimator_has_its_solver_here() -> None:
    assert set(SOLVERS) == {kind for kind in ESTIMATORS if ESTIMATORS[kind].at_solution}


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_only_derivatives_of_one_value_may_be_batched(kind: str) -> None:
    batchable = {"segments", "unroll", "truncated", "first_order", "one_step", "direct"}
    assert issubclass(ESTIMATORS[kind], ValueEstimator) == (kind in batchable)
