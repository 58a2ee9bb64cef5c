"""The contract of estimators, over all that are built in: one without a row here fails."""

import pytest

from metaloom.learners import ESTIMATORS
from metaloom.learners.hypergradients.problem import ValueEstimator
from metaloom.testing import EstimatorContract, EstimatorRow


class TestEstimators(EstimatorContract):
    rows = {
        "unroll": EstimatorRow(),
        "adjoint": EstimatorRow(),
        "conjugate_gradient": EstimatorRow(
            {"iterations": 30}, at_solution={"iterations": 60}, symmetric=True, careful={"damping": 3.0}
        ),
        "neumann": EstimatorRow(
            {"terms": 300, "alpha": 0.3},
            at_solution={"terms": 120, "alpha": 0.3},
            symmetric=True,
            careful={"alpha": 0.05},
        ),
        "checkpointed": EstimatorRow(),
        "forward": EstimatorRow(),
        "normal_equations": EstimatorRow({"iterations": 30}, at_solution={"iterations": 100}),
        "fixed_point": EstimatorRow({"iterations": 200}, at_solution={"iterations": 120}),
        "nystrom": EstimatorRow(  # exact for H + rho I
            {"rank": 5, "rho": 1e-10}, at_solution={"rank": 60, "rho": 1e-7}, solution_error=1e-6, symmetric=True
        ),
        "truncated": EstimatorRow({"last": 3}, error=None),
        "evolution_strategies": EstimatorRow({"pairs": 8}, error=None),
        "persistent_evolution_strategies": EstimatorRow({"pairs": 8}, error=None),
        "one_step": EstimatorRow(error=None),
        "finite_difference": EstimatorRow(error=None),
        "first_order": EstimatorRow(error=None),
        "direct": EstimatorRow(error=None),
        "segments": EstimatorRow({"length": 5}, error=None),
        "displacement": EstimatorRow(error=None),
    }

    def test_every_estimator_has_a_row(self) -> None:
        assert set(self.rows) == set(ESTIMATORS)

    def test_every_implicit_estimator_has_its_settings_here(self) -> None:
        assert {kind for kind, row in self.rows.items() if row.at_solution} == {
            kind for kind in ESTIMATORS if ESTIMATORS[kind].at_solution
        }


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_only_derivatives_of_one_value_may_be_batched(kind: str) -> None:
    batchable = {"segments", "unroll", "truncated", "first_order", "one_step", "direct"}
    assert issubclass(ESTIMATORS[kind], ValueEstimator) == (kind in batchable)
