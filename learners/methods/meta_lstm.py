r"""The meta-learner LSTM: learn the start, and the gates of the update, for a few steps on few examples.

Ravi and Larochelle, 2017, https://openreview.net/forum?id=rJY0-Kcll, algorithm 1: a handful of inner steps on
the support set, the query loss after the last one, backpropagated through all of them.
"""

from metaloom.learners.base import METHODS, Recipe

META_LSTM = METHODS.add(
    "meta_lstm",
    Recipe(
        summary="learns the initialization, and an LSTM whose gates are each parameter's decay and rate",
        paper="Ravi and Larochelle, 2017, https://openreview.net/forum?id=rJY0-Kcll",
        learner={"initialization": {"kind": "learned"}, "update": {"kind": "meta_lstm", "steps": 5}},
        outer={"hypergradient": {"kind": "unroll"}},
    ),
)
