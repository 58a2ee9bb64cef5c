"""Losses against their formulas, and against torch's own where it has them."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from metaloom.learners.build import SLOTS, make_component
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.loss import Loss
from metaloom.testing.problems import FEW_WAYS, normal, seeded

REGRESSION = TaskShape("regression", (3,), 2)
OUTPUTS, LABELS = 2 * normal(8, 3, seed=1), torch.arange(8) % 3
P = OUTPUTS.softmax(-1)
P_Y = P[torch.arange(8), LABELS]
ONE_HOT = F.one_hot(LABELS, 3).double()


def loss(kind: str, task: TaskShape = FEW_WAYS, **settings: Any) -> Loss:
    component = make_component(SLOTS["loss"], {"kind": kind, **settings}, task)
    assert isinstance(component, Loss)
    return component


EXPECTED = {
    "cross_entropy": -P_Y.log(),
    "focal": -((1 - P_Y) ** 1.5) * P_Y.log(),
    "squared": (P - ONE_HOT).square().sum(-1),
    "absolute": (P - ONE_HOT).abs().sum(-1),
    "generalized": (1 - P_Y**0.6) / 0.6,
}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("soft", [False, True])
def test_each_part_of_a_mixture_is_its_formula(name: str, soft: bool) -> None:
    component = loss("mixture", **{"cross_entropy": 0.0, name: 0.7, "gamma": 1.5, "q": 0.6})
    found = component.losses({}, OUTPUTS, ONE_HOT if soft else LABELS)
    torch.testing.assert_close(found, 0.7 * EXPECTED[name])


def test_generalized_cross_entropy_has_its_two_limits() -> None:
    near_zero = loss("mixture", cross_entropy=0.0, generalized=1.0, q=1e-7).losses({}, OUTPUTS, LABELS)
    torch.testing.assert_close(near_zero, EXPECTED["cross_entropy"], rtol=1e-5, atol=1e-6)
    one = loss("mixture", cross_entropy=0.0, generalized=1.0, q=1.0).losses({}, OUTPUTS, LABELS)
    torch.testing.assert_close(one, EXPECTED["absolute"] / 2)


def test_losses_add() -> None:
    weights = {"cross_entropy": 0.5, "absolute": 2.0, "squared": 0.1}
    found = loss("mixture", **weights).losses({}, OUTPUTS, LABELS)
    torch.testing.assert_close(found, sum(weight * EXPECTED[name] for name, weight in weights.items()))


def test_the_regression_mixture_and_its_log_cosh_far_out() -> None:
    outputs, targets = normal(5, 2, seed=2), normal(5, 2, seed=3)
    found = loss("regression_mixture", REGRESSION, squared=0.5, absolute=0.25, log_cosh=2.0)
    error = outputs - targets
    each = 0.5 * error.square() + 0.25 * error.abs() + 2 * torch.log(torch.cosh(error))
    torch.testing.assert_close(found.losses({}, outputs, targets), each.mean(-1))
    far = loss("regression_mixture", REGRESSION, squared=0.0, log_cosh=1.0).losses({}, targets - 5000, targets)
    torch.testing.assert_close(far, torch.full((5,), 5000 - 0.6931471805599453, dtype=torch.float64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cross_entropy": 0.0}, "every coefficient of the mixture is 0; raise one of cross_entropy, focal"),
        ({"focal": -1.0}, r"learner\.loss\.focal: got -1\.0; allowed: a number, at least 0"),
        ({"focal": {"learn": {}}}, r"learner\.loss\.focal is learned as its logarithm; give it a start above 0"),
        ({"q": 0.0}, r"learner\.loss\.q: got 0\.0; allowed: a number, above 0"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LearnerError, match=message):
        loss("mixture", **settings)


@pytest.mark.parametrize("task", [FEW_WAYS, REGRESSION], ids=lambda task: task.kind)
def test_a_learned_loss_is_positive_and_treats_all_outputs_alike(task: TaskShape) -> None:
    component = loss("ml3", task, hidden=6)
    phi = {name: value.double() for name, value in component.init({}, seeded(0)).items()}
    outputs = OUTPUTS[:, : task.outputs]
    targets = LABELS if task.kind == "classification" else normal(8, 2, seed=5)
    found = component.losses(phi, outputs, targets)
    assert found.shape == (8,)
    assert (found > 0).all()
    turned = LABELS.remainder(3).add(1).remainder(3) if task.kind == "classification" else targets.roll(1, -1)
    torch.testing.assert_close(component.losses(phi, outputs.roll(1, -1), turned), found)


def test_soft_labels_of_one_class_are_hard_ones_to_a_learned_loss() -> None:
    component = loss("ml3", hidden=6, hand=0.5)
    phi = {name: value.double() for name, value in component.init({}, seeded(0)).items()}
    torch.testing.assert_close(component.losses(phi, OUTPUTS, LABELS), component.losses(phi, OUTPUTS, ONE_HOT))
