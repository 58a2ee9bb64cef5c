r"""EASY: a network pre-trained with rotations and manifold mixup; augmented shots, centred on the sphere, for a task.

Bendou et al., 2022, https://arxiv.org/abs/2201.09699. ``augmented_shots`` is its head alone, over the body of a bundle
(``initialization: {kind: pretrained, bundle: PATH}``) or over one that learns by episodes.
"""

from metaloom.learners.base import METHODS, Recipe

BENDOU = "Bendou et al., 2022, https://arxiv.org/abs/2201.09699"

METHODS["easy"] = Recipe(
    summary="a network pre-trained on all classes with rotations and mixup; augmented shots on the sphere for a task",
    paper=BENDOU,
    learner={"initialization": {"kind": "learned"}, "prediction": {"kind": "easy"}},
    inner={"batch_norm": "frozen"},
    outer={"meta_batch": 1},
)

METHODS["augmented_shots"] = Recipe(
    summary="class means of augmented shots, centred on the unit sphere",
    paper=BENDOU,
    learner={"initialization": {"kind": "learned"}, "prediction": {"kind": "augmented_shots"}},
    inner={"batch_norm": "frozen"},
    outer={"meta_batch": 1},
)
