r"""Prototypical networks: classify by the distance to each class's mean embedding.

Snell, Swersky and Zemel, 2017, https://arxiv.org/abs/1703.05175, equations 1 and 2:

    c_k = mean of f_phi(x) over the support of class k,    p(k | x) = softmax_k(-|f_phi(x) - c_k|^2)

No inner steps: the embedding is all that is learned.
"""

from metaloom.learners.base import METHODS, Recipe

METHODS["prototypical"] = Recipe(
    summary="learns an embedding in which classes gather around their means",
    paper="Snell, Swersky and Zemel, 2017, https://arxiv.org/abs/1703.05175",
    learner={"initialization": {"kind": "learned"}, "prediction": {"kind": "prototypes"}},
    inner={"batch_norm": "frozen"},
    outer={"meta_batch": 1},
)
