r"""Learning to learn by gradient descent by gradient descent: a recurrent network that is an optimizer.

Andrychowicz et al., 2016, https://arxiv.org/abs/1606.04474, section 3: 100 inner steps, the outer loss the sum
of the losses along them, backpropagated in segments of 20. An optimizer that was learned on one family of
functions beats tuned Adam on others of it; beyond the length it was learned for it may diverge.
"""

from metaloom.learners.base import METHODS, Recipe

LEARNED_OPTIMIZER = METHODS.add(
    "learned_optimizer",
    Recipe(
        summary="learns the optimizer itself, a coordinatewise LSTM",
        paper="Andrychowicz et al., 2016, https://arxiv.org/abs/1606.04474",
        learner={"initialization": {"kind": "random"}, "update": {"kind": "learned_optimizer", "steps": 100}},
        inner={"trajectory_loss": True},
        outer={"hypergradient": {"kind": "segments", "length": 20}, "rate": 0.003},
    ),
)
