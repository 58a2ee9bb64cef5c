"""What every estimator must do: what it claims to see it sees, and it leaves nothing behind."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from metaloom.learners import ESTIMATORS, SLOTS
from metaloom.testing.contract import Contract
from metaloom.testing.problems import (
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

# a slot: settings that make it learned
KNOWLEDGE: dict[str, dict[str, Any]] = {
    "initialization": {"initialization": {"kind": "learned"}},
    "update": {"update": {"rate": {"learn": {"per": "layer", "start": 0.1}}, "steps": 2}},
    "weighting": {"weighting": {"kind": "meta_weight_net", "hidden": 6}},
    "loss": {"loss": {"kind": "cross_entropy", "label_smoothing": {"learn": {"start": 0.1}}}},
    "data": {"data": {"kind": "distilled"}},
    "architecture": {"architecture": {"kind": "cells", "channels": 4}},
}


@dataclass(frozen=True)
class EstimatorRow:
    """What an estimator claims.

    Attributes:
        settings: Those of the quadratic problem, whose curvature is between 1 and 3.
        error: Largest relative error to the exact hypergradient of that problem once it is solved; None: biased.
        at_solution: Settings with which an estimator at the solution solves a system of a few tens of numbers.
        solution_error: Largest relative error there.
        symmetric: Whether it takes the inner gradient's derivative to be symmetric, which weights that depend on the
            loss break.
        careful: Settings for an inner problem that is not solved and need not be convex.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    error: float | None = 1e-8
    at_solution: Mapping[str, Any] = field(default_factory=dict)
    solution_error: float = 1e-8
    symmetric: bool = False
    careful: Mapping[str, Any] = field(default_factory=dict)


class EstimatorContract(Contract):
    """The contract of estimators of the hypergradient.

    Attributes:
        rows: An estimator's name to what it claims.
    """

    rows: Mapping[str, EstimatorRow] = {}

    def cases(self) -> Mapping[str, Iterable[Any]]:
        implicit = [kind for kind in self.rows if ESTIMATORS[kind].at_solution]
        signals = [(kind, slot) for kind in self.rows for slot in KNOWLEDGE if self._gives_signal(kind, slot)]
        solved = [
            (kind, slot)
            for kind in implicit
            for slot in ("weighting", "loss", "data")
            if slot != "weighting" or not self.rows[kind].symmetric
        ]
        return {"estimator": self.rows, "implicit": implicit, "signal": signals, "solved": solved}

    @staticmethod
    def _gives_signal(kind: str, slot: str) -> bool:
        starts_once = ESTIMATORS[kind].online_only and slot == "initialization"
        return ESTIMATORS[kind].gives_signal(slot) and not starts_once

    def test_it_names_only_slots_that_exist(self, estimator: str) -> None:
        slots = {*SLOTS, "normalization", "*"}
        assert ESTIMATORS[estimator].sees <= slots
        assert ESTIMATORS[estimator].blind <= slots

    def test_exact_estimators_are_exact_and_biased_ones_are_not(self, estimator: str) -> None:
        row, problem = self.rows[estimator], quadratic(300)
        found = estimate(estimator, problem, **row.settings)
        error = relative_error(found.gradient["phi"], problem.exact)
        assert error > 1e-3 if row.error is None else error < row.error
        assert not found.gradient["phi"].requires_grad
        assert not found.outer.loss.requires_grad
        assert float(found.outer.loss) == pytest.approx(
            float(problem.problem.outer(problem.phi, {"theta": problem.solution}, 0).loss)
        )

    def test_what_it_claims_to_see_gets_a_finite_signal(self, signal: tuple[str, str]) -> None:
        kind, slot = signal
        task = IMAGES if slot == "architecture" else SINGLE
        settings = {"architecture": SMOOTH, "update": {"rate": 0.1, "steps": 2}, **KNOWLEDGE[slot]}
        mode = "online" if ESTIMATORS[kind].online_only else "episodic"
        chosen = {"kind": kind, **self.rows[kind].careful}
        learner = built(settings, task, inner={"proximal": 1.0, "mode": mode}, estimator=chosen)
        phi, state = begun(learner)
        before = {name: value.clone() for name, value in phi.items()}
        result = learner.meta_step(phi, state, [episode_of(task, 0)], seeded(0))
        assert set(result.gradient) == set(phi)
        for name, value in result.gradient.items():
            assert torch.isfinite(value).all(), name
            assert float(value.abs().max()) > 0, name
            assert torch.equal(phi[name], before[name])
        assert learner.estimator == kind

    def test_implicit_is_exact_for_every_slot_at_a_solution(self, solved: tuple[str, str]) -> None:
        """A proximal linear classifier is strongly convex: its solution does not depend on the path there."""
        kind, slot = solved
        settings = {
            "architecture": {"kind": "mlp", "hidden": []},
            "update": {"rate": 0.3, "steps": 60},
            **KNOWLEDGE[slot],
            "initialization": {"kind": "learned"},
        }
        chosen = {"kind": kind, **self.rows[kind].at_solution}
        learner = built(settings, SINGLE, inner={"proximal": 1.0}, estimator=chosen)
        errors = errors_by_slot(learner, [episode_of(SINGLE, 1)], directions=1)
        assert max(errors.values()) < self.rows[kind].solution_error

    def test_implicit_sees_the_start_of_what_no_inner_step_moves(self, implicit: str) -> None:
        """ANIL's body is part of the inner gradient too, not of the query pass alone."""
        settings = {
            "architecture": SMOOTH,
            "initialization": {"kind": "learned"},
            "update": {"rate": 0.3, "steps": 80, "adapt": "head"},
        }
        chosen = {"kind": implicit, **self.rows[implicit].at_solution}
        learner = built(settings, SINGLE, inner={"proximal": 1.0}, estimator=chosen)
        errors = errors_by_slot(learner, [episode_of(SINGLE, 1)])
        assert max(errors.values()) < self.rows[implicit].solution_error

    def test_an_implicit_gradient_says_how_far_it_is_from_solved(self, implicit: str) -> None:
        diagnostics = estimate(implicit, quadratic(3), **self.rows[implicit].at_solution).diagnostics
        assert diagnostics["inner_gradient_norm"] > 1e-3
        assert 0 <= diagnostics["residual"] < 1e-3
