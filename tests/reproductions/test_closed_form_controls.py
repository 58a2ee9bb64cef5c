"""The controls of M8 are our learners, by loss and gradient: written out otherwise, on the same weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.closed_form_networks import Fitted, MaximumMargin, Prototypes, RidgeRegression
from metaloom.learners.episode import TaskShape
from metaloom.testing.problems import SMOOTH, begun, built, episode_of, seeded

TASK = TaskShape("classification", (6,), 3, classes=9)
CASES: dict[str, tuple[Callable[[nn.Module], Fitted], dict[str, Any], float]] = {
    "prototypes": (Prototypes, {"kind": "prototypes"}, 1e-9),
    "ridge": (
        lambda body: RidgeRegression(body, 0.5, 4.0),
        {"kind": "ridge", "penalty": {"learn": {"start": 0.5}}, "scale": {"learn": {"start": 4.0}}},
        1e-6,
    ),
    # 2,000 steps of a projected gradient come as near to the exact solution
    "svm": (
        lambda body: MaximumMargin(body, cost=0.5, dual_ridge=0.1, scale=3.0, steps=2_000),
        {"kind": "svm", "cost": 0.5, "dual_ridge": 0.1, "scale": {"learn": {"start": 3.0}}},
        1e-6,
    ),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_control_is_our_learner_by_loss_and_gradient(name: str) -> None:
    make, prediction, near = CASES[name]
    settings = {"architecture": SMOOTH, "initialization": {"kind": "learned"}, "prediction": prediction}
    learner, episode = built(settings, TASK, estimator="auto"), episode_of(TASK, 0, support=9)
    phi, state = begun(learner)
    weight, bias = (next(v for n, v in phi.items() if n.endswith(end)) for end in ("weight", "bias"))
    linear = nn.Linear(6, 5, dtype=torch.float64)
    linear.load_state_dict({"weight": weight, "bias": bias})
    network = make(nn.Sequential(linear, nn.Tanh()))
    network.double()
    loss = F.cross_entropy(network(episode.support_x, episode.support_y, episode.query_x), episode.query_y)
    loss.backward()
    step = learner.meta_step(phi, state, [episode], seeded(0))
    assert float(loss.detach()) == pytest.approx(step.loss, abs=near)
    for leaf, own in (("weight", linear.weight), ("bias", linear.bias)):
        ours = next(value for key, value in step.gradient.items() if key.endswith(leaf))
        assert own.grad is not None
        torch.testing.assert_close(own.grad, ours, rtol=1e-5, atol=near)
    if "prediction/scale" in step.gradient:
        scale = network.log_scale.grad
        assert scale is not None
        assert float(scale) == pytest.approx(float(step.gradient["prediction/scale"]), abs=near)
