"""A learned augmentation policy, in a picture and in words."""

import torch

from metaloom.dashboards.canvas import png
from metaloom.dashboards.knowledge_figures import TrialKnowledge, pictures
from metaloom.learners.episode import TaskShape
from metaloom.learners.state import LearnerState

IMAGES = TaskShape("classification", (1, 8, 8), 3, single_task=True)
DADA = {"augmentation": {"kind": "dada", "operations": ["rotate", "invert", "flip"]}}


def test_the_likeliest_sub_policy_is_named_first() -> None:
    phi = {
        "augmentation/choice": torch.tensor([0.1, 0.7, 0.2]).log(),
        "augmentation/probability": torch.tensor([0.0, 0.0, 2.0]),
        "augmentation/magnitude": torch.tensor([0.0, 1.0, 0.0]),
    }
    (picture,) = pictures(TrialKnowledge({"architecture": {"kind": "mlp", "hidden": [3]}, **DADA}, IMAGES, phi, {}))
    assert png(picture.figure).startswith(b"\x89PNG")
    assert picture.name == "augmentation-policy"
    assert "at 70.0% of the images, is rotate (50%, magnitude 0.50) and flip (88%, magnitude 0.50)" in picture.caption


def test_a_policy_of_which_nothing_is_learned_is_not_drawn() -> None:
    learner = {"architecture": {"kind": "mlp", "hidden": [3]}, "augmentation": {"kind": "rand_augment"}}
    assert pictures(TrialKnowledge(learner, IMAGES, {}, LearnerState())) == []
