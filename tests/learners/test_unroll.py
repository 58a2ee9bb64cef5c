"""Unrolling, whole and cut, against closed forms."""

import pytest
import torch

from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.testing.problems import (
    IMAGES,
    SINGLE,
    SMOOTH,
    begun,
    built,
    episode_of,
    estimate,
    quadratic,
    quadratic_after,
    relative_error,
    ridge,
    seeded,
)

EXACT = ["unroll", "adjoint", "checkpointed", "forward"]
LEARNED_START = {"architecture": SMOOTH, "initialization": {"kind": "learned"}}


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("steps", [1, 3, 20])
def test_exact_at_any_number_of_steps(kind: str, steps: int) -> None:
    found = estimate(kind, quadratic(steps)).gradient["phi"]
    assert relative_error(found, quadratic_after(steps)) < 1e-13


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("per_feature", [True, False])
def test_ridge_closed_form_once_converged(kind: str, per_feature: bool) -> None:
    known = ridge(200, per_feature=per_feature)
    assert relative_error(estimate(kind, known).gradient["phi"], known.exact) < 1e-10


def test_error_of_unrolling_shrinks_with_steps() -> None:
    errors = []
    for steps in (5, 20, 100):
        known = ridge(steps, per_feature=True)
        errors.append(relative_error(estimate("unroll", known).gradient["phi"], known.exact))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-8


def test_the_chain_agrees_at_a_converged_inner_problem() -> None:
    known = ridge(300, per_feature=True)
    results = [
        estimate("unroll", known),
        *(estimate(kind, known) for kind in EXACT[1:]),
        estimate("truncated", known, last=200),
        estimate("conjugate_gradient", known, iterations=40),
        estimate("neumann", known, terms=300, alpha=0.25),
        estimate("fixed_point", known, iterations=300),
        estimate("normal_equations", known, iterations=60),
        estimate("nystrom", known, rank=12, rho=1e-12),
    ]
    for other in results[1:]:
        assert relative_error(other.gradient["phi"], results[0].gradient["phi"]) < 1e-9


@pytest.mark.parametrize("terms", [0, 4])
def test_neumann_is_a_truncated_unroll_at_the_solution(terms: int) -> None:
    """K terms after the first = the last K + 1 steps of plain gradient descent that rests at the solution."""
    known, cut = quadratic(300), quadratic(terms + 1)
    start_at_solution = cut.problem.__class__(
        **{**vars(cut.problem), "start": lambda phi: known.problem.start(phi)._replace(theta={"theta": known.solution})}
    )
    truncated = estimate("unroll", cut._replace(problem=start_at_solution)).gradient["phi"]
    series = estimate("neumann", known, terms=terms, alpha=0.3).gradient["phi"]
    assert relative_error(series, truncated) < 1e-9


@pytest.mark.parametrize("terms", [0, 1, 4, 20])
def test_truncation_neumann_and_fixed_point_are_one_series(terms: int) -> None:
    """At the solution: K + 1 unrolled steps = K Neumann terms after the first = K iterations of the fixed point."""
    known = quadratic(300)
    cut = estimate("truncated", known, last=terms + 1).gradient["phi"]
    series = estimate("neumann", known, terms=terms, alpha=0.3).gradient["phi"]
    assert relative_error(series, cut) < 1e-12
    # the fixed point's own step is one more, and its start has no part in the last term
    if terms > 0:
        iterated = estimate("fixed_point", known, iterations=terms).gradient["phi"]
        assert relative_error(iterated, cut) < 1e-12


def test_truncation_error_shrinks_with_the_steps_kept() -> None:
    known = quadratic(300)
    errors = [relative_error(estimate("truncated", known, last=k).gradient["phi"], known.exact) for k in (1, 5, 25, 60)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.01
    assert errors[-1] < 1e-8


@pytest.mark.parametrize("kind", ["checkpointed", "forward"])
@pytest.mark.parametrize("steps", [2, 5, 16, 17])
def test_every_exact_way_is_the_unrolled_one(kind: str, steps: int) -> None:
    known = ridge(steps, per_feature=True)  # from zero: one step would not see the penalty
    found, unrolled = (estimate(one, known).gradient["phi"] for one in (kind, "unroll"))
    assert relative_error(found, unrolled) < 1e-14


@pytest.mark.parametrize("every", [1, 3, 7, 100])
def test_checkpoints_may_lie_at_any_distance(every: int) -> None:
    known = quadratic(16)
    assert relative_error(estimate("checkpointed", known, every=every).gradient["phi"], quadratic_after(16)) < 1e-13


def test_a_truncated_unroll_gives_the_start_no_signal_unless_declared() -> None:
    update = {"kind": "sgd", "rate": 0.1, "steps": 4}
    with pytest.raises(LearnerError, match=r"truncated gives no signal to learner\.initialization, which is learned"):
        built({**LEARNED_START, "update": update}, SINGLE, estimator="truncated")
    found = {}
    for kind, settings in {
        "first_order": {},
        "unroll": {},
        "truncated": {"last": 1, "first_order_start": True},
        "whole": {"last": 4, "first_order_start": True},
    }.items():
        chosen = {"kind": "truncated" if kind == "whole" else kind, **settings}
        learner = built({**LEARNED_START, "update": update}, SINGLE, estimator=chosen)
        phi, state = begun(learner)
        gradient = learner.meta_step(phi, state, [episode_of(SINGLE, 0)], seeded(0)).gradient
        found[kind] = torch.cat([value.flatten() for value in gradient.values()])
    assert relative_error(found["whole"], found["unroll"]) < 1e-14
    cut, first = (relative_error(found[kind], found["unroll"]) for kind in ("truncated", "first_order"))
    assert 0 < cut < first  # the one step that is kept brings its curvature


def test_forward_refuses_more_columns_than_it_is_worth() -> None:
    with pytest.raises(LearnerError, match=r"forward pushes one column .* 12 are learned \(limit: 11\); use adjoint"):
        estimate("forward", ridge(3, per_feature=True), limit=11)


def test_one_step_is_the_last_step_alone() -> None:
    known = quadratic(300)
    found = estimate("one_step", known).gradient["phi"]
    series = estimate("neumann", known, terms=0, alpha=0.3).gradient["phi"]
    assert relative_error(found, series) < 1e-9
    assert relative_error(found, known.exact) > 0.01  # biased, and so it says


def test_one_step_is_exact_for_one_step() -> None:
    known = quadratic(1)
    assert relative_error(estimate("one_step", known).gradient["phi"], quadratic_after(1)) < 1e-13


def test_first_order_is_unrolling_with_detached_gradients() -> None:
    update = {"kind": "sgd", "rate": 0.1, "steps": 3}
    task = TaskShape("regression", (3,), 2)
    learner = built({**LEARNED_START, "update": update}, task, estimator="first_order")
    phi, state = begun(learner)
    episode = episode_of(task, 0)
    found = learner.meta_step(phi, state, [episode], seeded(0)).gradient

    theta = {name.removeprefix("initialization/"): value for name, value in phi.items()}
    for _ in range(3):
        slope = _gradient(theta, episode.support_x, episode.support_y)
        theta = {name: value - 0.1 * slope[name] for name, value in theta.items()}
    at_the_end = _gradient(theta, episode.query_x, episode.query_y)
    for name, value in at_the_end.items():
        torch.testing.assert_close(found[f"initialization/{name}"], value, rtol=1e-12, atol=1e-14)


def _gradient(theta: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
    hidden = torch.tanh(x @ leaves["layer0.weight"].T + leaves["layer0.bias"])
    loss = (hidden @ leaves["head.weight"].T + leaves["head.bias"] - y).square().mean()
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def test_reptile_with_one_step_is_joint_training() -> None:
    """theta_0 - theta_1 = rate * the gradient of the support loss: gradient descent on all tasks together."""
    learner = built(
        {**LEARNED_START, "update": {"kind": "sgd", "rate": 0.1, "steps": 1}},
        TaskShape("regression", (3,), 2),
        estimator="displacement",
    )
    phi, state = begun(learner)
    episodes = [episode_of(learner.task, seed) for seed in (0, 1)]
    found = learner.meta_step(phi, state, episodes, seeded(0)).gradient
    theta = {name.removeprefix("initialization/"): value for name, value in phi.items()}
    slopes = [_gradient(theta, episode.support_x, episode.support_y) for episode in episodes]
    for name in theta:
        joint = 0.1 * (slopes[0][name] + slopes[1][name]) / 2
        torch.testing.assert_close(found[f"initialization/{name}"], joint, rtol=1e-12, atol=1e-14)


def test_first_order_in_one_infinitesimal_step_is_the_exact_gradient() -> None:
    update = {"kind": "sgd", "rate": 1e-9, "steps": 1}
    found = {}
    for kind in ("unroll", "first_order"):
        learner = built({**LEARNED_START, "update": update}, SINGLE, estimator=kind)
        phi, state = begun(learner)
        found[kind] = learner.meta_step(phi, state, [episode_of(SINGLE, 0)], seeded(0)).gradient
    for name, value in found["unroll"].items():
        torch.testing.assert_close(found["first_order"][name], value, rtol=1e-6, atol=1e-10)


def test_maml_on_quadratics_finds_the_mean_of_the_tasks() -> None:
    """On tasks a/2 (x - c)^2, T steps contract towards c: the best start is the mean of the centres."""
    task, centres = TaskShape("regression", (1,), 1), [-1.0, 0.5, 4.0]
    learner = built(
        {
            "architecture": {"kind": "mlp", "hidden": []},
            "initialization": {"kind": "learned"},
            "update": {"kind": "sgd", "rate": 0.1, "steps": 3},
        },
        task,
    )
    zero = torch.zeros(1, 1, dtype=torch.float64)  # the input is zero: the bias alone predicts
    episodes = [Episode(Support(zero, zero + c), zero, zero + c) for c in centres]
    phi, state = begun(learner)
    bias = "initialization/head.bias"
    phi[bias] = torch.tensor([sum(centres) / 3], dtype=torch.float64)
    at_mean = learner.meta_step(phi, state, episodes, seeded(0)).gradient[bias]
    assert abs(float(at_mean)) < 1e-12
    phi[bias] = phi[bias] + 1
    beside = learner.meta_step(phi, state, episodes, seeded(0)).gradient[bias]
    contraction = (1 - 0.1 * 2) ** 3  # of (x - c)^2, whose curvature is 2
    torch.testing.assert_close(beside, torch.tensor([2 * contraction**2], dtype=torch.float64), rtol=1e-12, atol=0)


def test_meta_sgd_learns_the_inverse_curvature() -> None:
    """On a quadratic, one step with the rate 1 / curvature lands on the minimum: no gradient is left."""
    task = TaskShape("regression", (1,), 1)
    rate = {"learn": {"per": "parameter", "start": 0.5}}  # 1 / curvature of (x - c)^2
    learner = built(
        {
            "architecture": {"kind": "mlp", "hidden": []},
            "initialization": {"kind": "learned"},
            "update": {"kind": "sgd", "rate": rate, "steps": 1},
        },
        task,
    )
    zero = torch.zeros(1, 1, dtype=torch.float64)
    phi, state = begun(learner)
    step = learner.meta_step(phi, state, [Episode(Support(zero, zero + 3), zero, zero + 3)], seeded(0))
    assert step.loss < 1e-24
    assert all(float(value.abs().max()) < 1e-12 for value in step.gradient.values())


@pytest.mark.parametrize(
    "kind",
    [
        "first_order",
        "one_step",
        "truncated",
        "finite_difference",
        "displacement",
        "conjugate_gradient",
        "neumann",
        "normal_equations",
        "nystrom",
        "fixed_point",
        "direct",
    ],
)
def test_a_multi_step_loss_is_refused_by_what_sees_the_last_step_only(kind: str) -> None:
    knowledge = {
        "displacement": {"initialization": {"kind": "learned"}},
        "first_order": {"initialization": {"kind": "learned"}},
        **{kind: {"initialization": {"kind": "learned"}} for kind in ("conjugate_gradient", "neumann")},
        "direct": {"architecture": {"kind": "cells", "channels": 4}},
    }.get(kind, {"weighting": {"kind": "meta_weight_net", "hidden": 4}})
    task = IMAGES if kind == "direct" else SINGLE
    learner = built(
        {"architecture": SMOOTH, "update": {"steps": 2}, **knowledge},
        task,
        inner={"multi_step_loss": 10, "proximal": 1.0},
        estimator=kind,
    )
    phi, state = begun(learner)
    with pytest.raises(
        LearnerError, match=r"differentiates at the last inner step only; set inner\.multi_step_loss to 0"
    ):
        learner.meta_step(phi, state, [episode_of(task, 0)], seeded(0))
