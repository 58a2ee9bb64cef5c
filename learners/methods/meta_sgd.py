r"""Meta-SGD: learn the start and a rate, with sign, for every parameter.

Li, Zhou, Chen and Li, 2017, https://arxiv.org/abs/1707.09835, equation 3 and algorithm 1:

    theta' = theta - alpha o grad L_support(theta),    alpha of theta's shape, both learned

One inner step; the rates start in U[0.005, 0.1]. It diverges when taken further than it was trained.
"""

from metaloom.learners.base import METHODS, Recipe

META_SGD = METHODS.add(
    "meta_sgd",
    Recipe(
        summary="learns the initialization and one rate per parameter, for a single inner step",
        paper="Li, Zhou, Chen and Li, 2017, https://arxiv.org/abs/1707.09835",
        learner={
            "initialization": {"kind": "learned"},
            "update": {
                "kind": "sgd",
                "rate": {"learn": {"per": "parameter", "start": 0.0525}},
                "start_spread": 0.905,
                "steps": 1,
            },
        },
        outer={"hypergradient": {"kind": "unroll"}},
    ),
)
