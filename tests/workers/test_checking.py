"""Central differences that a slight slope does not escape."""

import math

import torch

from metaloom.learners.tensors import Tensors
from metaloom.workers import checking


def test_a_slope_that_rounding_hides_is_measured_further_away() -> None:
    slope, generator = 1e-8, torch.Generator().manual_seed(0)

    def objective(at: Tensors) -> float:
        return 1.0 + slope * float(at["phi"].sum())

    def difference(direction: Tensors, displacement: float) -> float:
        ends = [objective({"phi": sign * displacement * direction["phi"]}) for sign in (1, -1)]
        return (ends[0] - ends[1]) / (2 * displacement)

    gradient = {"phi": torch.full((3,), slope, dtype=torch.float64)}
    measured = checking._measure(gradient, generator, difference)
    assert len(measured.differences) > len(checking.DISPLACEMENTS)
    assert measured.error(gradient) <= checking.EXACT
    wrong = {"phi": 1.001 * gradient["phi"]}
    assert measured.error(wrong) > checking.EXACT


def test_what_does_not_move_the_objective_has_no_relative_error() -> None:
    assert checking._relative_error(torch.ones(2, dtype=torch.float64), [0.0, 0.0]) == math.inf
    assert checking._relative_error(torch.zeros(2, dtype=torch.float64), [0.0, 0.0]) == 0


def test_a_solvers_own_networks_are_checked_as_a_whole() -> None:
    leaves = ("ridge", "film/norm0/gamma.scale", "set_encoder/conv0.weight", "conv0.weight")
    assert [checking.knob_of(f"prediction/{leaf}") for leaf in leaves] == [
        "learner.prediction.ridge",
        "learner.prediction.film",
        "learner.prediction.set_encoder",
        "learner.prediction",
    ]
