"""Dynamic time warping against the recursion written out; squared and root distances, lengths, gaps and windows."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from metaloom.learners import build_learner
from metaloom.learners.build import SLOTS, make_component
from metaloom.learners.episode import Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.solvers.base import Solver
from metaloom.learners.solvers.metric.time_warping import warped
from metaloom.testing.problems import FEW_WAYS, SERIES, normal, seeded

WHOLE = TaskShape("classification", (2, 5), 3, classes=9)


def written_out(a: Tensor, b: Tensor, window: int = 99) -> float:
    """Go through the recursion for two series [channels, length], cell by cell."""
    rows, columns = a.shape[1], b.shape[1]
    total = {(i, j): math.inf for i in range(-1, rows) for j in range(-1, columns)}
    total[-1, -1] = 0.0
    for i, j in itertools.product(range(rows), range(columns)):
        if abs(i - j) <= window:
            best = min(total[i - 1, j], total[i, j - 1], total[i - 1, j - 1])
            total[i, j] = float((a[:, i] - b[:, j]).square().sum()) + best
    return total[rows - 1, columns - 1]


@pytest.mark.parametrize("window", [1.0, 0.4, 0.0])
def test_distances_are_those_of_the_recursion(window: float) -> None:
    left, right = normal(4, 2, 5, seed=1), normal(3, 2, 5, seed=2)
    found = warped(left, right, WHOLE, window)
    expected = [[written_out(a, b, math.ceil(window * 5)) for b in right] for a in left]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    if window == 0.0:
        torch.testing.assert_close(found, (left[:, None] - right).square().sum((2, 3)))


def test_series_of_unequal_length_and_with_gaps_are_compared_as_they_are() -> None:
    """Item 22: nothing is cut, and no padding is warped."""
    values = normal(2, 2, 7, seed=3)
    observed = torch.tensor([[1, 1, 0, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1]]).double()
    x = torch.cat([values * observed[:, None], observed[:, None]], 1)
    found = warped(x, x, SERIES)
    short, long = values[0][:, [0, 1, 3, 4]], values[1]
    assert float(found[0, 1]) == pytest.approx(written_out(short, long))
    assert float(found[1, 0]) == pytest.approx(written_out(long, short))
    torch.testing.assert_close(found.diagonal(), torch.zeros(2, dtype=torch.float64))
    narrow = warped(x, x, SERIES, 0.0)  # as wide as the difference of the lengths
    assert float(narrow[0, 1]) == pytest.approx(written_out(short, long, 3))


def test_it_is_said_whether_a_distance_is_squared_or_its_root() -> None:
    """Item 24: squared (as aeon) and root (as tslearn) differ, choose alike, and a temperature is of one of them."""
    support = Support(normal(6, 2, 5, seed=4), torch.arange(6) % 3)
    queries = normal(8, 2, 5, seed=5)
    scores = {}
    for distance in ("squared", "root"):
        learner = build_learner(
            learner={"prediction": {"kind": "time_warping", "distance": distance}}, inner={}, outer={}, task=WHOLE
        )
        state = learner.begin({}, seeded(0))
        scores[distance] = learner.adapt({}, state, support, seeded(0)).predict(queries)
    nearest = -torch.stack([warped(queries, support.x, WHOLE)[:, label::3].amin(1) for label in range(3)], 1)
    torch.testing.assert_close(scores["squared"], nearest.softmax(-1))
    torch.testing.assert_close(scores["root"], (-(-nearest).sqrt()).softmax(-1))
    assert torch.equal(scores["squared"].argmax(-1), scores["root"].argmax(-1))
    assert not torch.allclose(scores["squared"], scores["root"])


def test_pairs_are_warped_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = normal(7, 2, 5, seed=1), normal(3, 2, 5, seed=2)
    whole = warped(left, right, WHOLE)
    monkeypatch.setattr("metaloom.learners.solvers.metric.time_warping.CELLS", 160)  # two series at once
    assert torch.equal(warped(left, right, WHOLE), whole)


@pytest.mark.parametrize("kind", ["nearest_neighbour", "knn_inputs"])
def test_what_compares_step_by_step_refuses_series_that_are_not_whole(kind: str) -> None:
    """Item 22: an operation that needs equal lengths says so."""
    solver = make_component(SLOTS["prediction"], {"kind": kind}, SERIES)
    assert isinstance(solver, Solver)
    with pytest.raises(LearnerError, match=rf"{kind} compares series step by step, .* use time_warping"):
        solver.check("auto")


def test_examples_that_are_no_series_are_refused() -> None:
    with pytest.raises(LearnerError, match=r"compares series \[channels, length\], .* shape \(6,\)"):
        make_component(SLOTS["prediction"], {"kind": "time_warping"}, FEW_WAYS)
