r"""The optimizer itself is learned.

``learned_optimizer`` (Andrychowicz et al., 2016, https://arxiv.org/abs/1606.04474, section 3): 100 inner steps, the
outer loss the sum of the losses along them, truncated backpropagation through 20 steps at a time, with an outer step
after each (``inner.carry``; ``hypergradient: segments`` takes one outer step for all 100). What was learned on one
family of functions works for others of it; beyond the length that it was learned for it may diverge.

``meta_lstm`` (Ravi and Larochelle, 2017, https://openreview.net/forum?id=rJY0-Kcll, algorithm 1) learns the start, and
the gates of the update: the query loss after a few inner steps is backpropagated through all of them.
"""

from metaloom.learners.base import METHODS, Recipe

METHODS["learned_optimizer"] = Recipe(
    summary="learns the optimizer itself, a coordinatewise LSTM",
    paper="Andrychowicz et al., 2016, https://arxiv.org/abs/1606.04474",
    learner={
        "initialization": {"kind": "random"},
        # as in the paper: differentiated, the gradient's Jacobian makes the products over 20 steps explode
        "update": {"kind": "learned_optimizer", "steps": 20, "evaluation_steps": 100, "second_order": False},
    },
    inner={"trajectory_loss": True, "carry": 5},
    # the hypergradient is heavy-tailed: unclipped, the few functions on which the optimizer still diverges determine
    # Adam's second moment, and all others hardly move the optimizer
    outer={"hypergradient": {"kind": "unroll"}, "meta_batch": 1, "rate": 0.01, "clip": 1.0},
)

METHODS["meta_lstm"] = Recipe(
    summary="learns the initialization, and an LSTM whose gates are each parameter's decay and rate",
    paper="Ravi and Larochelle, 2017, https://openreview.net/forum?id=rJY0-Kcll",
    learner={"initialization": {"kind": "learned"}, "update": {"kind": "meta_lstm", "steps": 5}},
    outer={"hypergradient": {"kind": "unroll"}},
)
