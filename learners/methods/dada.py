r"""DADA: learn an augmentation policy by its hypergradient, while the network is trained.

Li, Hu, Wang, Hospedales, Robertson and Yang, 2020, https://arxiv.org/abs/2003.03780, equations 3 to 6. Online: at
each outer step, with x~ the training batch as the policy varies it,

    theta^   = theta - eta grad L(x~(phi); theta)
    phi     <- phi - beta * grad_phi L_held_out(theta^)
    theta   <- the same step with the new phi

Departures, each declared: the hypergradient of the look-ahead step is exact (where the paper takes a difference
quotient), the choices are relaxed by Gumbel's noise (where it takes RELAX), probability and magnitude belong to an
operation (where it has its own for every pair), and every image draws its own sub-policy (where a batch does).
"""

from metaloom.learners.base import METHODS, Recipe

DADA = METHODS.add(
    "dada",
    Recipe(
        summary="learns an augmentation policy: which operations, how often and how strong",
        paper="Li et al., 2020, https://arxiv.org/abs/2003.03780",
        learner={
            "initialization": {"kind": "random"},
            "update": {"kind": "sgd", "rate": 0.05, "momentum": 0.9, "steps": 1},
            "augmentation": {"kind": "dada"},
        },
        inner={"mode": "online"},
        outer={"hypergradient": {"kind": "unroll"}, "meta_batch": 1, "rate": 5e-3},
    ),
)
