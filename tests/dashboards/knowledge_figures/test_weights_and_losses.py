"""Learned weights and losses, in pictures and words."""

from typing import Any

import pytest
import torch

from metaloom.dashboards.canvas import png
from metaloom.dashboards.knowledge_figures import Picture, TrialKnowledge, pictures
from metaloom.learners import build_learner
from metaloom.learners.episode import TaskShape

DIGITS = TaskShape("classification", (4,), 3, single_task=True, counts=(50, 10, 5))
SINE = TaskShape("regression", (1,), 1)


def known(task: TaskShape, **slots: Any) -> TrialKnowledge:
    learner = {"architecture": {"kind": "mlp", "hidden": [3]}, **slots}
    return TrialKnowledge(
        learner, task, build_learner(learner=learner, inner={}, outer={}, task=task).init(seeded()), {}
    )


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def only(found: TrialKnowledge) -> Picture:
    (picture,) = pictures(found)
    assert png(picture.figure).startswith(b"\x89PNG")
    return picture


def test_a_falling_weight_curve_is_drawn_and_said() -> None:
    found = known(DIGITS, weighting={"kind": "meta_weight_net", "hidden": 2})
    for name, value in {"layer0.weight": 1.0, "layer0.bias": 0.0, "layer1.weight": -1.0, "layer1.bias": 0.0}.items():
        found.phi[f"weighting/{name}"].fill_(value)
    picture = only(found)
    x, y = picture.figure.axes[0].get_lines()[0].get_data()
    expected = torch.sigmoid(-2 * torch.tensor([0.1, 4.0])) / 0.5
    assert picture.name == "weight-curve"
    assert y[0] == y.max()
    assert x[-1] == 6.0
    assert picture.caption == (
        "Examples of loss 0.0 have the largest weight; relative to it an example of loss 0.1 has weight "
        f"{float(expected[0]):.3g}, one of loss 4 has {float(expected[1]):.3g}."
    )


def test_a_focal_weight_with_a_learned_power_rises() -> None:
    picture = only(known(DIGITS, weighting={"kind": "focal", "gamma": {"learn": {"start": 2.0}}}))
    assert "Examples of loss 6.0 have the largest weight" in picture.caption


def test_class_weights_name_the_largest_and_the_smallest() -> None:
    picture = only(known(DIGITS, weighting={"kind": "class_ratios", "ratio": {"learn": {}}}))
    assert len(picture.figure.axes[0].patches) == 3
    assert picture.caption.startswith("Class 2 has the largest weight (4.33), class 0 the smallest (0.433)")


def test_sample_weights_are_counted() -> None:
    found = known(DIGITS, weighting={"kind": "per_sample"})
    found.phi["weighting/sample"][:20] = -4.0
    assert only(found).caption == "20 of 65 training examples weigh less than half of the mean."


@pytest.mark.parametrize(
    ("task", "loss"),
    [
        (DIGITS, {"kind": "ml3", "hidden": 4}),
        (SINE, {"kind": "ml3", "hidden": 4}),
        (DIGITS, {"kind": "mixture", "absolute": {"learn": {"start": 0.5}}}),
        (SINE, {"kind": "regression_mixture", "absolute": {"learn": {"start": 0.5}}}),
    ],
)
def test_a_learned_loss_is_drawn_beside_the_tasks_own(task: TaskShape, loss: dict[str, Any]) -> None:
    picture = next(one for one in pictures(known(task, loss=loss)) if one.name == "learned-loss")
    assert [line.get_label() for line in picture.figure.axes[0].get_lines()] == ["learned", "the task's own"]
    if loss["kind"] == "regression_mixture":
        assert (
            picture.caption
            == "The learned loss is least at 0.00 (prediction, where the target is 0) and rises by 10.5."
        )


def test_weights_that_nobody_learned_are_not_drawn() -> None:
    assert pictures(known(DIGITS, weighting={"kind": "focal"}, loss={"kind": "mixture"})) == []
