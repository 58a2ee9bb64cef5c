r"""Data hyper-cleaning: learn one weight for each training example from a few clean ones.

Franceschi et al., 2017, https://arxiv.org/abs/1703.01785, section 5.1; the weights stand in
``knowledge/per_sample_weights.py``. Online, as Meta-Weight-Net. Each outer step moves the weights of one
batch alone, hence the large outer rate.
"""

from metaloom.learners.base import METHODS, Recipe

DATA_CLEANING = METHODS.add(
    "data_cleaning",
    Recipe(
        summary="learns how much every single training example counts",
        paper="Franceschi et al., 2017, https://arxiv.org/abs/1703.01785",
        learner={
            "initialization": {"kind": "random"},
            "update": {"kind": "sgd", "rate": 0.05, "momentum": 0.9, "steps": 1},
            "weighting": {"kind": "per_sample"},
        },
        inner={"mode": "online"},
        outer={"meta_batch": 1, "rate": 0.05},
    ),
)
