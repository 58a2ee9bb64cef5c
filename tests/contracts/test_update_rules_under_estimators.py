"""The contract of update rules under every estimator: a new rule, a plugin's too, is tested without being listed."""

import pytest

from metaloom.learners import ESTIMATORS
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.update_rules import UPDATE_RULES
from metaloom.testing import UpdateRuleContract
from metaloom.testing.update_rules import CONVERGED, Variant, error

# settings of a rule at which it solves the inner problem; of a rule that is not here they are its defaults
BASES = {
    "sgd": {"rate": 0.18},
    "adam": {"rate": 0.18, "beta1": 0.1, "beta2": 0.3, "epsilon": 1.0},
    "adamw": {"rate": 0.18, "beta1": 0.1, "beta2": 0.3, "epsilon": 1.0},
    "rmsprop": {"rate": 0.18, "smoothing": 0.3, "epsilon": 1.0},
    "learned_optimizer": {"hidden": 2},
    "meta_lstm": {"rate": 0.05, "hidden": 2},
}


class TestUpdateRules(UpdateRuleContract):
    rows = {kind: BASES.get(kind, {}) for kind in UPDATE_RULES}

    @pytest.mark.parametrize("decay", [0.1, 0.4])
    @pytest.mark.parametrize("kind", [kind for kind in ESTIMATORS if ESTIMATORS[kind].stationary])
    def test_a_decay_of_the_loss_is_seen_and_a_decoupled_one_is_refused(self, kind: str, decay: float) -> None:
        sgd = Variant("sgd", {"rate": 0.18, "weight_decay": decay}, "sgd")
        found, exact = (self.estimated(sgd, CONVERGED, one) for one in (kind, "adjoint"))
        assert found is not None and exact is not None and error(found, exact) < 1e-8
        for rule in ("adam", "adamw"):
            with pytest.raises(LearnerError, match=rf"learner\.update \({rule}\).*use sgd, .*fixed_point or unroll"):
                self.learner_of(Variant(rule, {"weight_decay": decay}, rule), CONVERGED, kind)
