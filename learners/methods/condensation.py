r"""Dataset condensation: learn examples that act on a network as the real data do.

* ``gradient_matching``: Zhao, Mopuri and Bilen, 2021, https://arxiv.org/abs/2006.05929, algorithm 1, with one
  new network theta_0 an outer step, as for one image per class; more ``update.steps`` follow its training.
* ``distribution_matching``: Zhao and Bilen, 2023, https://arxiv.org/abs/2110.04181, algorithm 1: cheap, for no
  gradient is differentiated.

The papers move the images by SGD (rate 0.1, and 1 for the features); Adam's steps do not depend on the
distance's scale. ``update`` is how a network is then trained on the examples, another one for every evaluation.
"""

from typing import Any

from metaloom.learners.base import METHODS, Recipe

TRAINING: dict[str, Any] = {
    "kind": "sgd",
    "rate": 0.01,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "steps": 1,
    "evaluation_steps": 100,
}
START = {"kind": "random", "resample": True, "resample_evaluated": True}


def condensed(kind: str, summary: str, paper: str) -> Recipe:
    """Return the recipe of a kind of matching: one example per class, for a new network at every outer step."""
    return Recipe(
        summary=summary,
        paper=paper,
        learner={
            "architecture": {"kind": "convnet"},
            "initialization": START,
            "data": {"kind": kind, "per_class": 1},
            "update": TRAINING,
        },
        outer={"meta_batch": 1, "rate": 0.1},
    )


GRADIENT_MATCHING = METHODS.add(
    "gradient_matching",
    condensed(
        "gradient_matching",
        "learns training examples whose gradients match those of the real data",
        "Zhao, Mopuri and Bilen, 2021, https://arxiv.org/abs/2006.05929",
    ),
)

DISTRIBUTION_MATCHING = METHODS.add(
    "distribution_matching",
    condensed(
        "distribution_matching",
        "learns training examples whose mean features match those of the real data",
        "Zhao and Bilen, 2023, https://arxiv.org/abs/2110.04181",
    ),
)

CORE_SET = METHODS.add(
    "core_set",
    Recipe(
        summary="trains on a chosen part of the training data: by herding, k-center or at random",
        paper="Welling, 2009, https://doi.org/10.1145/1553374.1553517, and Sener and Savarese, 2018, "
        "https://arxiv.org/abs/1708.00489",
        learner={
            "initialization": {"kind": "random", "resample_evaluated": True},
            "data": {"kind": "core_set"},
            "update": {"kind": "sgd", "rate": 0.1, "momentum": 0.9, "steps": 50},
        },
        outer={"steps": 0},
    ),
)
