r"""MAML++: per-layer per-step rates, multi-step loss, per-step batch norm; each an option.

Antoniou, Edwards and Storkey, 2019, https://arxiv.org/abs/1810.09502, section 4. Every tensor has a
learned rate for every step (LSLR), the outer loss is a weighted sum over the inner steps that fades to
the last one (MSL), and batch norm has its own gamma and beta for every step, which the inner loop does
not move. As in the reference code, a query pass uses its own batch's statistics: transductive.
"""

from metaloom.learners.base import METHODS, Recipe

MAML_PLUS_PLUS = METHODS.add(
    "maml_plus_plus",
    Recipe(
        summary="MAML with learned per-layer per-step rates, a multi-step loss and per-step batch norm",
        paper="Antoniou, Edwards and Storkey, 2019, https://arxiv.org/abs/1810.09502",
        learner={
            "initialization": {"kind": "learned"},
            "update": {"kind": "sgd", "rate": {"learn": {"per": "layer_step", "start": 0.1}}, "steps": 5},
        },
        inner={"batch_norm": "per_step", "multi_step_loss": 5000},
        outer={"hypergradient": {"kind": "unroll"}, "schedule": "cosine"},
    ),
)
