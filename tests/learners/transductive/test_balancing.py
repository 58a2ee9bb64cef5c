"""The assignment under given shares of the classes: sums, optimality, gradient, and the estimate of the shares."""

import pytest
import torch
from torch import Tensor

from metaloom.learners.solvers.transductive.balancing import (
    BalanceConfig,
    balanced,
    estimated_shares,
    log_probabilities,
    sinkhorn,
)
from metaloom.testing.problems import normal, seeded

ALL = torch.ones(1, 3, dtype=torch.bool)


def plan_of(scores: Tensor, columns: Tensor, steps: int = 1000, tolerance: float = 1e-12) -> Tensor:
    return sinkhorn(scores, torch.ones(scores.shape[:2]).to(scores), columns, steps=steps, tolerance=tolerance)


def test_the_sums_of_rows_and_columns_are_those_that_were_asked_for() -> None:
    scores, columns = 3 * normal(4, 12, 3, seed=0), torch.tensor([[6.0, 4.0, 2.0]]).double().expand(4, -1)
    plan = plan_of(scores, columns)
    torch.testing.assert_close(plan.sum(1), columns)
    torch.testing.assert_close(plan.sum(2), torch.ones(4, 12).double())


def test_no_plan_with_the_same_sums_is_better() -> None:
    """A cycle of four entries changes no sum; the optimum has a derivative of 0 along each."""
    scores = normal(1, 5, 3, seed=1)
    plan = plan_of(scores, torch.full((1, 3), 5 / 3).double())[0]
    slopes = scores[0] - plan.log()  # of <P, scores> + entropy(P), up to a constant
    for i in range(4):
        cycle = slopes[i, 0] - slopes[i, 1] - slopes[i + 1, 0] + slopes[i + 1, 1]
        assert float(cycle.abs()) < 1e-9


def test_its_gradient_is_that_of_central_differences() -> None:
    scores, weights, way = (normal(2, 6, 3, seed=seed) for seed in (2, 3, 4))
    columns = torch.tensor([[3.0, 2.0, 1.0]]).double().expand(2, -1)

    def value(at: Tensor) -> Tensor:
        return (plan_of(at, columns, steps=60) * weights).sum()

    leaf = scores.clone().requires_grad_()
    exact = float((torch.autograd.grad(value(leaf), leaf)[0] * way).sum())
    difference = float(value(scores + 1e-5 * way) - value(scores - 1e-5 * way)) / 2e-5
    assert exact == pytest.approx(difference, rel=1e-6)


def test_an_episode_ends_alone_so_that_a_batch_with_a_slow_one_changes_nothing() -> None:
    scores = torch.cat([normal(1, 9, 3, seed=5), 20 * normal(1, 9, 3, seed=6)])
    columns = torch.full((2, 3), 3.0).double()
    together = plan_of(scores, columns, tolerance=1e-3)
    for index in range(2):
        alone = plan_of(scores[index : index + 1], columns[:1], tolerance=1e-3)
        assert torch.equal(together[index], alone[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_far_apart_leave_it_finite(dtype: torch.dtype) -> None:
    scores = torch.tensor([[0.0, -500.0, -900.0]], dtype=dtype).expand(1, 6, 3)
    plan = plan_of(scores, torch.full((1, 3), 2.0, dtype=dtype), tolerance=1e-6)
    assert torch.isfinite(plan).all()
    torch.testing.assert_close(plan.sum(1), torch.full((1, 3), 2.0, dtype=dtype))


def test_estimated_shares_are_near_those_that_were_drawn() -> None:
    shares = torch.tensor([0.7, 0.2, 0.1]).double()
    labels = torch.multinomial(shares, 3000, replacement=True, generator=seeded(0))
    centres = 2 * torch.eye(3).double()
    x = centres[labels] + normal(3000, 3, seed=7)
    scores = -0.5 * (x[:, None] - centres).square().sum(-1)[None]
    found = estimated_shares(scores, ALL, BalanceConfig(marginal="estimated", prior=0.0, estimate_steps=200))
    torch.testing.assert_close(found[0], shares, atol=0.03, rtol=0)
    drawn_to_equal = estimated_shares(scores, ALL, BalanceConfig(marginal="estimated", prior=1e6))
    torch.testing.assert_close(drawn_to_equal[0], torch.full((3,), 1 / 3).double(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("marginal", ["uniform", "estimated", "none"])
def test_a_class_without_examples_gets_no_query(marginal: str) -> None:
    present = torch.tensor([[True, False, True]])
    found = balanced(normal(1, 8, 3, seed=8), present, BalanceConfig(marginal=marginal))  # type: ignore[arg-type]
    assert float(found[..., 1].max()) < 1e-12
    torch.testing.assert_close(found.sum(-1), torch.ones(1, 8).double(), atol=1e-5, rtol=0)


def test_fewer_queries_than_classes_are_assigned_each_on_its_own() -> None:
    scores = normal(1, 2, 3, seed=9)
    torch.testing.assert_close(balanced(scores, ALL, BalanceConfig()), torch.softmax(scores, -1))


def test_probabilities_come_back_from_their_logarithms() -> None:
    plan = torch.tensor([[[1.0, 0.0], [0.25, 0.75]]]).double()
    torch.testing.assert_close(torch.softmax(log_probabilities(plan), -1), plan)
