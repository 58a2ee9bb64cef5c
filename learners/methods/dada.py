r"""DADA: learn an augmentation policy by its hypergradient, while the network is trained.

Li, Hu, Wang, Hospedales, Robertson and Yang, 2020, https://arxiv.org/abs/2003.03780, equations 3 to 6. Online: at
each outer step, with x~ the training batch as the policy varies it,

    theta^   = theta - eta grad L(x~(phi); theta)
    phi     <- phi - beta * grad_phi L_held_out(theta^)
    theta   <- the same step with the new phi

Differences: the hypergradient of the look-ahead step is exact (the paper takes a difference quotient), the choices are
relaxed by Gumbel noise (the paper: RELAX), probability and magnitude belong to an operation (the paper: to an operation
of a pair), and each image draws its own sub-policy (the paper: each batch).
"""

from metaloom.learners.base import METHODS, Recipe

METHODS["dada"] = Recipe(
    summary="learns an augmentation policy: which operations, how often and how strong",
    paper="Li et al., 2020, https://arxiv.org/abs/2003.03780",
    learner={
        "initialization": {"kind": "random"},
        "update": {"kind": "sgd", "rate": 0.05, "momentum": 0.9, "steps": 1},
        "augmentation": {"kind": "dada"},
    },
    inner={"mode": "online"},
    outer={"hypergradient": {"kind": "unroll"}, "meta_batch": 1, "rate": 5e-3},
)
