r"""Reptile: move the start towards where ordinary training on each task ends.

Nichol, Achiam and Schulman, 2018, https://arxiv.org/abs/1803.02999, algorithm 2:

    phi <- phi + epsilon * mean_i (theta_i,T - phi)

As in the paper the outer loop is plain SGD whose rate epsilon falls from 1 to 0, and the inner loop
Adam without first moment. The inner loop trains on all of a task's data, support and query.
"""

from metaloom.learners.base import METHODS, Recipe

REPTILE = METHODS.add(
    "reptile",
    Recipe(
        summary="moves the initialization towards the end of ordinary training on each task",
        paper="Nichol, Achiam and Schulman, 2018, https://arxiv.org/abs/1803.02999",
        learner={
            "initialization": {"kind": "learned"},
            "update": {"kind": "adam", "rate": 1e-3, "beta1": 0.0, "steps": 5, "evaluation_steps": 50},
            "data": {"kind": "whole_task"},
        },
        outer={"hypergradient": {"kind": "displacement"}, "optimizer": "sgd", "rate": 1.0, "schedule": "linear"},
    ),
)
