"""Learned settings and a learned reward, in pictures and words."""

from typing import Any

import pytest
import torch

from metaloom.dashboards.canvas import png
from metaloom.dashboards.knowledge_figures import Picture, TrialKnowledge, pictures
from metaloom.learners import build_learner
from metaloom.learners.episode import TaskShape

CLASSES = TaskShape("classification", (4,), 3, single_task=True, counts=(50, 10, 5))
POINT_MASS = TaskShape("control", (4,), 2, environment="point_mass")


def drawn(task: TaskShape, **slots: Any) -> tuple[TrialKnowledge, dict[str, Picture]]:
    learner = {"architecture": {"kind": "mlp", "hidden": [3]}, **slots}
    phi = build_learner(learner=learner, inner={}, outer={}, task=task).init(torch.Generator().manual_seed(0))
    known = TrialKnowledge(learner, task, phi, {})
    return known, {picture.name: picture for picture in pictures(known)}


def test_a_learned_setting_is_told_with_where_it_started() -> None:
    smoothing = {"kind": "cross_entropy", "label_smoothing": {"learn": {"start": 0.1}}}
    known, before = drawn(CLASSES, loss=smoothing)
    assert before["loss-settings"].caption == "Learned label_smoothing: 0.1 (from 0.1)."
    known.phi["loss/label_smoothing"].fill_(0.25)
    (picture,) = pictures(known)
    assert picture.caption == "Learned label_smoothing: 0.25 (from 0.1)."
    assert [float(line.get_xdata()[0]) for line in picture.figure.axes[0].get_lines()] == pytest.approx([0.1, 0.25])
    assert png(picture.figure).startswith(b"\x89PNG")


def test_the_shares_of_a_mixture_are_told_beside_its_curve() -> None:
    mixture = {name: {"learn": {"start": start}} for name, start in (("cross_entropy", 0.5), ("generalized", 1.5))}
    _, found = drawn(CLASSES, loss={"kind": "mixture", **mixture})
    assert set(found) == {"learned-loss", "loss-settings"}
    assert found["loss-settings"].caption == (
        "Learned cross_entropy: 0.5 (from 0.5). Learned generalized: 1.5 (from 1.5)."
    )


def test_what_is_fixed_is_not_drawn() -> None:
    assert drawn(CLASSES, loss={"kind": "cross_entropy", "label_smoothing": 0.1})[1] == {}


def test_a_learned_potential_says_whether_coming_closer_pays() -> None:
    known, _ = drawn(POINT_MASS, loss={"kind": "shaped_policy_gradient", "hidden": 4})
    for name, value in known.phi.items():
        if name.startswith("loss/potential"):
            value.zero_()
    # the first hidden unit grows with the place's first coordinate alone: no place around the goal is better on average
    known.phi["loss/potential0.weight"][0, 0] = known.phi["loss/potential1.weight"][0, 0] = 1.0
    known.phi["loss/potential2.weight"][0, 0] = 1.0
    picture = {one.name: one for one in pictures(known)}["potential"]
    assert "is 0 at the goal" in picture.caption and picture.figure.axes[0].collections
    known.phi["loss/potential0.bias"].fill_(0.0)
    known.phi["loss/potential0.weight"][0] = 0.0
    known.phi["loss/potential1.bias"][0] = 1.0
    told = {one.name: one for one in pictures(known)}["potential"].caption
    assert "is 1.52 at the goal and on average 1.52 at distance 1" in told
