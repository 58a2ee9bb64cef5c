r"""Differentiable architecture search: learn the operations of a cell, then train the chosen ones.

Liu, Simonyan and Yang, 2019, https://arxiv.org/abs/1806.09055, algorithm 1 and equation 6. Online: at each outer step

    theta^   = one inner step from theta on the training batch, in the mixture of operations alpha
    alpha   <- alpha - beta * grad_alpha L_validation(theta^(alpha), alpha)
    theta   <- the same inner step with the new alpha

``darts`` takes the exact gradient through theta^, momentum and decay included, where the reference approximates it by a
difference quotient (``hypergradient: finite_difference``); ``darts_first_order`` holds theta constant (xi = 0), and so
do ``gdas`` and ``pc_darts``, whose cells are relaxed differently (see ``cells.py``: one drawn operation per edge; a
part of the channels and normalized edges). ``outer.retrain_steps`` then trains the strongest operations from scratch.
"""

from typing import Any

from metaloom.learners.base import METHODS, Recipe

DARTS = "Liu, Simonyan and Yang, 2019, https://arxiv.org/abs/1806.09055"
FIRST_ORDER = {"kind": "direct", "look_ahead": False}


def searched(summary: str, paper: str, hypergradient: dict[str, Any], **cells: Any) -> Recipe:
    """Return the recipe of a cell search: its estimator, and its settings of the cells."""
    return Recipe(
        summary=f"learns which operations a cell is made of, {summary}",
        paper=paper,
        learner={
            "architecture": {"kind": "cells", **cells},
            "initialization": {"kind": "random"},
            # the paper's rates, 0.025 inside and 3e-4 outside, are for 20,000 steps on CIFAR-10; these for hundreds of
            # steps on digits
            "update": {"kind": "sgd", "rate": 0.1, "momentum": 0.9, "weight_decay": 3e-4, "steps": 1},
        },
        inner={"mode": "online"},
        outer={"hypergradient": hypergradient, "meta_batch": 1, "rate": 0.01},
    )


METHODS["darts"] = searched("through one exact inner step", DARTS, {"kind": "unroll"})
METHODS["darts_first_order"] = searched("holding the network's parameters constant", DARTS, FIRST_ORDER)
METHODS["gdas"] = searched(
    "computing one that is drawn on each edge",
    "Dong and Yang, 2019, https://arxiv.org/abs/1910.04465",
    FIRST_ORDER,
    relaxation="sampled",
)
METHODS["pc_darts"] = searched(
    "on a quarter of its channels, with normalized edges",
    "Xu et al., 2020, https://arxiv.org/abs/1907.05737",
    FIRST_ORDER,
    partial=4,
    edge_normalization=True,
)
