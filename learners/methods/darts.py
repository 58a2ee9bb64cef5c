r"""Differentiable architecture search: learn the operations of a cell, then train what they say.

Liu, Simonyan and Yang, 2019, https://arxiv.org/abs/1806.09055, algorithm 1 and equation 6. Online: at each
outer step

    theta^   = one inner step from theta on the training batch, in the mixture of operations alpha
    alpha   <- alpha - beta * grad_alpha L_validation(theta^(alpha), alpha)
    theta   <- the same inner step with the new alpha

``darts`` takes the exact gradient through theta^, momentum and decay included, where the reference
approximates it by a difference quotient (``hypergradient: finite_difference``); ``darts_first_order`` holds
theta constant (xi = 0), and so do ``gdas`` and ``pc_darts``, whose cells are relaxed otherwise (see ``cells.py``:
a drawn operation an edge; a part of the channels and normalized edges). ``outer.retrain_steps`` then trains the
strongest operations from scratch.
"""

from typing import Any

from metaloom.learners.base import METHODS, Recipe

PAPER = "Liu, Simonyan and Yang, 2019, https://arxiv.org/abs/1806.09055"
LEARNER: dict[str, dict[str, Any]] = {
    "architecture": {"kind": "cells"},
    "initialization": {"kind": "random"},
    # the paper's rates, 0.025 inside and 3e-4 outside, are for 20,000 steps of CIFAR-10; these for hundreds of digits
    "update": {"kind": "sgd", "rate": 0.1, "momentum": 0.9, "weight_decay": 3e-4, "steps": 1},
}

DARTS = METHODS.add(
    "darts",
    Recipe(
        summary="learns which operations a cell is made of, through one exact inner step",
        paper=PAPER,
        learner=LEARNER,
        inner={"mode": "online"},
        outer={"hypergradient": {"kind": "unroll"}, "meta_batch": 1, "rate": 0.01},
    ),
)

DARTS_FIRST_ORDER = METHODS.add(
    "darts_first_order",
    Recipe(
        summary="learns which operations a cell is made of, holding the network's parameters constant",
        paper=PAPER,
        learner=LEARNER,
        inner={"mode": "online"},
        outer={"hypergradient": {"kind": "direct", "look_ahead": False}, "meta_batch": 1, "rate": 0.01},
    ),
)

GDAS = METHODS.add(
    "gdas",
    Recipe(
        summary="learns which operations a cell is made of, computing one that is drawn on each edge",
        paper="Dong and Yang, 2019, https://arxiv.org/abs/1910.04465",
        learner={**LEARNER, "architecture": {"kind": "cells", "relaxation": "sampled"}},
        inner={"mode": "online"},
        outer={"hypergradient": {"kind": "direct", "look_ahead": False}, "meta_batch": 1, "rate": 0.01},
    ),
)

PC_DARTS = METHODS.add(
    "pc_darts",
    Recipe(
        summary="learns which operations a cell is made of, on a quarter of its channels, with normalized edges",
        paper="Xu et al., 2020, https://arxiv.org/abs/1907.05737",
        learner={**LEARNER, "architecture": {"kind": "cells", "partial": 4, "edge_normalization": True}},
        inner={"mode": "online"},
        outer={"hypergradient": {"kind": "direct", "look_ahead": False}, "meta_batch": 1, "rate": 0.01},
    ),
)
