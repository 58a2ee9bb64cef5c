r"""Relation networks: learn the comparison of a query with a class, beside the features that are compared.

Sung et al., 2018, https://arxiv.org/abs/1711.06025, section 3.4: an encoder of four blocks of which two pool, and a
comparison of two blocks and two layers, trained by the squared error of each relation score.

Batch norm has its running averages where it is evaluated: each query is then predicted on its own.
"""

from metaloom.learners.base import METHODS, Recipe

METHODS["relation"] = Recipe(
    summary="learns an embedding, and how a query is compared with each class",
    paper="Sung et al., 2018, https://arxiv.org/abs/1711.06025",
    learner={"initialization": {"kind": "learned"}, "prediction": {"kind": "relation"}},
    inner={"batch_norm": "frozen"},
    outer={"meta_batch": 1},
)
