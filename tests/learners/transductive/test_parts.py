"""The parts of the transductive heads: preparation, distances in a span, graphs, leading eigenvectors."""

import pytest
import torch

from metaloom.learners.solvers.transductive.eigenvectors import leading_eigenvectors
from metaloom.learners.solvers.transductive.graphs import gaussian_similarity, nearest, normalized, propagator
from metaloom.learners.solvers.transductive.preparing import Span, centred, power_transform
from metaloom.testing.problems import normal
from tests.support.features import features


def test_the_power_transform_is_the_papers_and_has_a_slope_at_zero() -> None:
    x = torch.tensor([0.0, 0.25, 4.0, -1.0]).double().requires_grad_()
    found = power_transform(x, 0.5)
    torch.testing.assert_close(found, torch.tensor([1e-3, 0.5, 2.0, 1e-3]).double(), atol=2e-6, rtol=0)
    assert bool(torch.isfinite(torch.autograd.grad(found.sum(), x)[0]).all())
    assert power_transform(x, 1.0) is x


def test_centring_apart_leaves_both_sets_without_a_mean_and_one_query_where_the_support_set_is() -> None:
    given = features()
    support, queries = centred(given.support, given.queries, "separate")
    assert float(support.mean(1).abs().max()) < 1e-12
    assert float(queries.mean(1).abs().max()) < 1e-12
    one = given.queries[:, :1]
    torch.testing.assert_close(centred(given.support, one, "separate")[1], one - given.support.mean(1, keepdim=True))
    both = torch.cat(centred(given.support, given.queries, "together"), 1)
    assert float(both.mean(1).abs().max()) < 1e-12


@pytest.mark.parametrize("width", [3, 40])
def test_distances_in_a_span_are_those_of_its_points(width: int) -> None:
    x, weights = normal(2, 10, width, seed=0), normal(2, 4, 10, seed=1)
    found = Span(x).distances(weights)
    torch.testing.assert_close(found, torch.cdist(x, weights @ x).square())
    joined = Span.joined([Span(x[:1]), Span(x[1:])])
    assert joined.examples == 10
    torch.testing.assert_close(joined.distances(weights), found)


def test_a_propagator_is_the_sum_of_the_damped_powers_of_its_graph() -> None:
    weights = gaussian_similarity(normal(1, 6, 3, seed=2), 1.0)
    step, total = 0.6 * normalized(weights), torch.eye(6).double()[None]
    series = total
    for _ in range(200):
        total = total @ step
        series = series + total
    torch.testing.assert_close(propagator(weights, 0.6), series)


def test_a_node_without_neighbours_keeps_what_it_has() -> None:
    weights = torch.zeros(1, 3, 3).double()
    torch.testing.assert_close(propagator(weights, 0.9), torch.eye(3).double()[None])


def test_the_nearest_are_others_and_as_many_as_there_are() -> None:
    similarity = normal(1, 5, 5, seed=3)
    assert nearest(similarity, 2).sum(-1).tolist() == [[2] * 5]
    assert nearest(similarity, 50).sum(-1).tolist() == [[4] * 5]
    assert not nearest(similarity, 3).diagonal(dim1=1, dim2=2).any()
    assert not nearest(similarity[:, :1, :1], 3).any()


@pytest.mark.parametrize("width", [3, 12])
def test_leading_eigenvectors_have_a_derivative_where_the_others_are_equal(width: int) -> None:
    """Of 8 points in 3 dimensions five eigenvalues are 0; ``torch.linalg.eigh`` then returns NaN."""
    x, weights, way = normal(1, 8, width, seed=4), normal(1, 8, 2, seed=5), normal(1, 8, width, seed=6)

    def value(at: torch.Tensor) -> torch.Tensor:
        return (leading_eigenvectors(at @ at.mT, 2) * weights).sum()

    leaf = x.clone().requires_grad_()
    exact = float((torch.autograd.grad(value(leaf), leaf)[0] * way).sum())
    difference = float(value(x + 1e-6 * way) - value(x - 1e-6 * way)) / 2e-6
    assert exact == pytest.approx(difference, rel=1e-6)
    assert float((leading_eigenvectors(x @ x.mT, 2).norm(dim=1) - 1).abs().max()) < 1e-12
