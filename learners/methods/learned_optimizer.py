r"""Learning to learn by gradient descent by gradient descent: a recurrent network that is an optimizer.

Andrychowicz et al., 2016, https://arxiv.org/abs/1606.04474, section 3: 100 inner steps, the outer loss the sum
of the losses along them, truncated backpropagation through 20 steps at a time, with an outer step after each
(``inner.carry``; ``hypergradient: segments`` takes one outer step for all 100). What was
learned on one family of functions serves others of it; beyond the length it was learned for it may diverge.
"""

from metaloom.learners.base import METHODS, Recipe

LEARNED_OPTIMIZER = METHODS.add(
    "learned_optimizer",
    Recipe(
        summary="learns the optimizer itself, a coordinatewise LSTM",
        paper="Andrychowicz et al., 2016, https://arxiv.org/abs/1606.04474",
        learner={
            "initialization": {"kind": "random"},
            # the paper's: differentiated, the gradient's Jacobian makes the products over 20 steps explode
            "update": {"kind": "learned_optimizer", "steps": 20, "evaluation_steps": 100, "second_order": False},
        },
        inner={"trajectory_loss": True, "carry": 5},
        # the hypergradient is heavy-tailed: unclipped, the few functions on which the optimizer still diverges set
        # Adam's second moment, and all the others hardly move it
        outer={"hypergradient": {"kind": "unroll"}, "meta_batch": 1, "rate": 0.01, "clip": 1.0},
    ),
)
