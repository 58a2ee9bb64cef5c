r"""Few training examples in place of many: learned or chosen.

``distillation`` (Wang, Zhu, Torralba and Efros, 2018, https://arxiv.org/abs/1811.10959, algorithm 1) learns examples
that train a network in one step, and the step sizes, by backpropagation through the inner loop. The start is one fixed
draw, or redrawn at each outer step (``initialization: {kind: random, resample: true}``).

Condensation learns examples that act on a network as the real data do: ``gradient_matching`` (Zhao, Mopuri and Bilen,
2021, https://arxiv.org/abs/2006.05929, algorithm 1), with one new network theta_0 per outer step, as for one image per
class (more ``update.steps`` follow its training); ``distribution_matching`` (Zhao and Bilen, 2023,
https://arxiv.org/abs/2110.04181, algorithm 1), which is cheap, for no inner gradient is differentiated. The papers move
the images by SGD (rate 0.1, and 1 for the features); Adam's steps do not depend on the distance's scale. ``update`` is
how a network is then trained on the examples, a new one for each evaluation.
"""

from metaloom.learners.base import METHODS, Recipe

METHODS["distillation"] = Recipe(
    summary="learns training examples, and the step sizes to train on them",
    paper="Wang, Zhu, Torralba and Efros, 2018, https://arxiv.org/abs/1811.10959",
    learner={
        "initialization": {"kind": "random"},
        "data": {"kind": "distilled", "per_class": 1},
        "update": {"kind": "sgd", "rate": {"learn": {"per": "step", "start": 0.02}}, "steps": 1},
    },
    outer={"hypergradient": {"kind": "unroll"}, "meta_batch": 1, "rate": 0.01},
)

for _kind, _what, _paper in (
    ("gradient_matching", "gradients", "Zhao, Mopuri and Bilen, 2021, https://arxiv.org/abs/2006.05929"),
    ("distribution_matching", "mean features", "Zhao and Bilen, 2023, https://arxiv.org/abs/2110.04181"),
):
    METHODS[_kind] = Recipe(
        summary=f"learns training examples whose {_what} match those of the real data",
        paper=_paper,
        learner={
            "architecture": {"kind": "convnet"},
            "initialization": {"kind": "random", "resample": True, "resample_evaluated": True},
            "data": {"kind": _kind, "per_class": 1},
            "update": {
                "kind": "sgd",
                "rate": 0.01,
                "momentum": 0.9,
                "weight_decay": 5e-4,
                "steps": 1,
                "evaluation_steps": 100,
            },
        },
        outer={"meta_batch": 1, "rate": 0.1},
    )

METHODS["core_set"] = Recipe(
    summary="trains on a chosen part of the training data: by herding, k-center or at random",
    paper="Welling, 2009, https://doi.org/10.1145/1553374.1553517, and Sener and Savarese, 2018, "
    "https://arxiv.org/abs/1708.00489",
    learner={
        "initialization": {"kind": "random", "resample_evaluated": True},
        "data": {"kind": "core_set"},
        "update": {"kind": "sgd", "rate": 0.1, "momentum": 0.9, "steps": 50},
    },
    outer={"steps": 0},
)
