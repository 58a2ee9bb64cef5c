"""A difference quotient in a second derivative's place: its order, on one side and on two, and its passes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from metaloom.learners.build import make_config
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.finite_difference import FiniteDifferenceConfig
from metaloom.learners.solvers.gradient import GradientLearner
from metaloom.learners.solvers.inner_loop import InnerLoop
from metaloom.testing.problems import SINGLE, SMOOTH, begun, built, episode_of, seeded

WEIGHTS: dict[str, Any] = {"weighting": {"kind": "meta_weight_net", "hidden": 5}}
SMOOTHING: dict[str, Any] = {"loss": {"kind": "cross_entropy", "label_smoothing": {"learn": {"start": 0.1}}}}


def gradient_by(estimator: Any, learned: dict[str, Any]) -> Tensor:
    """Return one online step's hypergradient in float64, flat."""
    settings = {"architecture": {**SMOOTH}, "update": {"steps": 1, "rate": 0.3}, **learned}
    learner = built(settings, SINGLE, inner={"mode": "online"}, estimator=estimator)
    assert isinstance(learner, GradientLearner)
    phi, state = begun(learner)
    step = learner.meta_step(phi, state, [episode_of(SINGLE, 1)], seeded(0))
    return torch.cat([step.gradient[name].flatten() for name in sorted(step.gradient)])


def error_of(learned: dict[str, Any], **settings: Any) -> float:
    exact = gradient_by("unroll", learned)
    found = gradient_by({"kind": "finite_difference", **settings}, learned)
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize("learned", [WEIGHTS, SMOOTHING, WEIGHTS | SMOOTHING], ids=["weights", "loss", "both"])
@pytest.mark.parametrize("sides", [1, 2])
def test_the_error_is_of_the_order_of_the_sides(sides: int, learned: dict[str, Any]) -> None:
    coarse, fine = (error_of(learned, sides=sides, epsilon=epsilon) for epsilon in (0.02, 0.01))
    assert coarse / fine == pytest.approx(2**sides, rel=0.1)
    assert error_of(learned, sides=sides, epsilon=1e-6) < 1e-5


def passes(monkeypatch: pytest.MonkeyPatch, learned: dict[str, Any], **settings: Any) -> int:
    """Count how often the training batch passes through the network in one meta-step."""
    count = 0
    losses = InnerLoop.support_losses

    def counted(self: InnerLoop, *args: Any) -> Tensor:
        nonlocal count
        count += 1
        return losses(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(InnerLoop, "support_losses", counted)
        gradient_by({"kind": "finite_difference", **settings}, learned)
    return count


def test_one_side_spares_a_pass_where_the_loss_there_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = passes(monkeypatch, WEIGHTS), passes(monkeypatch, WEIGHTS, sides=2)
    assert one == two - 1
    assert passes(monkeypatch, WEIGHTS, sides=1) == one
    assert passes(monkeypatch, SMOOTHING) == passes(monkeypatch, SMOOTHING, sides=2) == two


def test_the_default_is_close() -> None:
    assert error_of(WEIGHTS) < 1e-3
    assert error_of(SMOOTHING) < 1e-3


def test_other_sides_are_refused() -> None:
    with pytest.raises(LearnerError, match=r"outer\.hypergradient\.sides: got 3; allowed: 1, 2 or null"):
        make_config(FiniteDifferenceConfig, {"sides": 3}, "outer.hypergradient")
