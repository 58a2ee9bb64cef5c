"""A learned augmentation policy, in a picture and in words."""

from dataclasses import replace

import torch

from metaloom.dashboards.canvas import png
from metaloom.dashboards.knowledge_facts.augmentation import augmented_images
from metaloom.dashboards.knowledge_facts.panels import Images
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


def test_a_policy_is_shown_on_images_before_and_after() -> None:
    phi = {
        "augmentation/choice": torch.tensor([-20.0, 20.0, -20.0]),  # the second pair of operations: rotate and flip
        "augmentation/probability": torch.tensor([-20.0, -20.0, 20.0]),  # of which only the flip is applied
        "augmentation/magnitude": torch.zeros(3),
    }
    pixels = (torch.arange(2 * 64) * 2 % 256).reshape(2, 1, 8, 8).to(torch.uint8)
    learner = {"architecture": {"kind": "mlp", "hidden": [3]}, **DADA}
    knowledge = TrialKnowledge(learner, IMAGES, phi, LearnerState(), {"images": pixels})
    found = augmented_images(knowledge)
    assert found is not None and isinstance(found.panels[0], Images)
    rows = dict(found.panels[0].rows)
    assert list(rows) == ["as it is", "draw 1", "draw 2", "draw 3"]
    torch.testing.assert_close(rows["as it is"], pixels[:, 0] / 255)
    torch.testing.assert_close(rows["draw 2"], pixels[:, 0].flip(-1) / 255)
    assert "100% of the draws change their image" in found.caption
    assert augmented_images(replace(knowledge, shown={"images": pixels[0]})) is None
