r"""SNAIL: learn to read the support set as a sequence, by temporal convolutions and causal attention.

Mishra, Rohaninejad, Chen and Abbeel, 2018, https://arxiv.org/abs/1707.03141, section 3: the labelled examples and then
the query; the output at the query is its class.

Batch norm has its running averages where it is evaluated.
"""

from metaloom.learners.base import METHODS, Recipe

METHODS["snail"] = Recipe(
    summary="learns to read the support set as a sequence, by convolutions over it and attention",
    paper="Mishra, Rohaninejad, Chen and Abbeel, 2018, https://arxiv.org/abs/1707.03141",
    learner={"initialization": {"kind": "learned"}, "prediction": {"kind": "snail"}},
    inner={"batch_norm": "frozen"},
    outer={"meta_batch": 1},
)
