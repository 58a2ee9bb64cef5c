r"""Dataset distillation: learn a handful of examples that train a network in one step.

Wang, Zhu, Torralba and Efros, 2018, https://arxiv.org/abs/1811.10959, algorithm 1. The examples and the
step sizes are learned by backpropagation through the inner loop that trains on them; the start is one
fixed draw, or redrawn at each outer step (``initialization: {kind: random, resample: true}``).
"""

from metaloom.learners.base import METHODS, Recipe

DISTILLATION = METHODS.add(
    "distillation",
    Recipe(
        summary="learns training examples, and the step sizes to train on them",
        paper="Wang, Zhu, Torralba and Efros, 2018, https://arxiv.org/abs/1811.10959",
        learner={
            "initialization": {"kind": "random"},
            "data": {"kind": "distilled", "per_class": 1},
            "update": {"kind": "sgd", "rate": {"learn": {"per": "step", "start": 0.02}}, "steps": 1},
        },
        outer={"hypergradient": {"kind": "unroll"}, "meta_batch": 1, "rate": 0.01},
    ),
)
