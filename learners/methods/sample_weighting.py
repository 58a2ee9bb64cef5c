r"""Learned weights of training examples, online: on noisy labels, from a few clean samples.

``meta_weight_net`` (Shu et al., 2019, https://arxiv.org/abs/1902.07379, equations 4 to 7) learns a net V of the loss of
an example. At each outer step

    theta^   = one inner step from theta with the weights V(l_i; phi)
    phi     <- phi - beta * grad_phi L_clean(theta^)
    theta   <- the same inner step with the new phi

As in the reference a batch's weights are divided by their sum, and the net's Adam has rate 1e-3 and weight decay 1e-4:
the decay brings the net back from a saturated sigmoid. The look-ahead is the real inner step, momentum and decay
included, where the reference takes a plain one; the hypergradient is exact for that step. By the division the weight of
an example that is fitted already scales the step of all others, so that the net keeps lowering it while that helps.
Where the clean set is small and soon fitted (50 digits, 1,500 steps), a rate of 1e-3 may lower the weights at small
losses first, and the noise is then fitted; at 3e-4 the weights keep falling with the loss (claim V7 prints the ratio of
the weights of clean and wrong labels).

``learning_to_reweight`` (Ren et al., 2018, https://arxiv.org/abs/1803.09050, algorithm 1) computes the weights of each
batch again. Only the network persists, so there is no outer rate: at each outer step theta takes one weighted inner
step.

``data_cleaning`` (data hyper-cleaning; Franceschi et al., 2017, https://arxiv.org/abs/1703.01785, section 5.1) learns
one weight for each example. An outer step moves the weights of one batch alone, hence the large outer rate.

The formulas are in ``knowledge/sample_weights.py``.
"""

from typing import Any

from metaloom.learners.base import METHODS, Recipe

TRAINING: dict[str, dict[str, Any]] = {
    "initialization": {"kind": "random"},
    "update": {"kind": "sgd", "rate": 0.05, "momentum": 0.9, "steps": 1},
}

METHODS["meta_weight_net"] = Recipe(
    summary="learns a net that weighs each training example by its loss",
    paper="Shu et al., 2019, https://arxiv.org/abs/1902.07379",
    learner={**TRAINING, "weighting": {"kind": "meta_weight_net", "hidden": 100}},
    inner={"mode": "online"},
    outer={"hypergradient": {"kind": "unroll"}, "meta_batch": 1, "rate": 1e-3, "weight_decay": 1e-4},
)

METHODS["learning_to_reweight"] = Recipe(
    summary="weighs each batch's examples by the agreement of their gradients with the clean samples'",
    paper="Ren et al., 2018, https://arxiv.org/abs/1803.09050",
    learner={**TRAINING, "weighting": {"kind": "reweight"}},
    inner={"mode": "online"},
    outer={"meta_batch": 1},
)

METHODS["data_cleaning"] = Recipe(
    summary="learns how much every single training example counts",
    paper="Franceschi et al., 2017, https://arxiv.org/abs/1703.01785",
    learner={**TRAINING, "weighting": {"kind": "per_sample"}},
    inner={"mode": "online"},
    outer={"meta_batch": 1, "rate": 0.05},
)
