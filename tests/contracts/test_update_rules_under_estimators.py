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
    "adagrad": {"rate": 0.5, "initial_sum": 4.0, "epsilon": 1.0},
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
        for rule in ("sgd", "adam", "adagrad"):
            coupled = Variant(rule, {**BASES[rule], "weight_decay": decay}, rule)
            found, exact = (self.estimated(coupled, CONVERGED, one) for one in (kind, "adjoint"))
            assert found is not None and exact is not None and error(found, exact) < 1e-8
        for rule, settings in (("adam", {"decoupled_weight_decay": True}), ("adamw", {})):
            decoupled = Variant(rule, {"weight_decay": decay, **settings}, rule)
            with pytest.raises(LearnerError, match=rf"learner\.update \({rule}\).*use sgd or adam, .*fixed_point or"):
                self.learner_of(decoupled, CONVERGED, kind)
