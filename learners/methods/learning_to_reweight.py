r"""Learning to reweight: weigh each example of a batch by how it agrees with a few clean ones.

Ren et al., 2018, https://arxiv.org/abs/1803.09050, algorithm 1; the formula stands in
``knowledge/reweighting.py``. Online, with Meta-Weight-Net's own training for comparison. Nothing persists but
the network itself, so there is no outer rate to set: at each outer step theta takes one weighted inner step.
"""

from metaloom.learners.base import METHODS, Recipe

LEARNING_TO_REWEIGHT = METHODS.add(
    "learning_to_reweight",
    Recipe(
        summary="weighs each batch's examples by the agreement of their gradients with the clean samples'",
        paper="Ren et al., 2018, https://arxiv.org/abs/1803.09050",
        learner={
            "initialization": {"kind": "random"},
            "update": {"kind": "sgd", "rate": 0.05, "momentum": 0.9, "steps": 1},
            "weighting": {"kind": "reweight"},
        },
        inner={"mode": "online"},
        outer={"meta_batch": 1},
    ),
)
