r"""A learned potential for the reward of a policy-gradient learner.

Potential-based shaping is Ng, Harada and Russell's, 1999; learning it by the gradient of the true return through
the policy's own updates is Zheng, Oh and Singh's, 2018, https://arxiv.org/abs/1804.06459, and Bechtle et al.'s,
2021, https://arxiv.org/abs/1906.05374. The formulas stand in ``knowledge/policy_gradient.py``. Every outer
step draws a new policy to learn, so that the potential serves any, and so does every task that is evaluated.
"""

from metaloom.learners.base import METHODS, Recipe

LEARNED_REWARD = METHODS.add(
    "learned_reward",
    Recipe(
        summary="learns a potential that shapes the reward of a policy-gradient learner",
        paper="Zheng et al., 2018, https://arxiv.org/abs/1804.06459",
        learner={
            "architecture": {"kind": "mlp", "hidden": [16], "activation": "tanh"},
            "initialization": {"kind": "random", "resample": True, "resample_evaluated": True},
            "update": {"kind": "sgd", "rate": 0.3, "steps": 5, "evaluation_steps": 20},
            "loss": {"kind": "shaped_policy_gradient"},
        },
        # only the few policies that happen to come near the goal have a hypergradient to speak of: many tasks for each
        # outer step, and a clip below the usual norm, so that one of those few cannot undo what the others taught
        outer={"hypergradient": {"kind": "unroll"}, "strategy": "vmap", "meta_batch": 16, "rate": 0.01, "clip": 0.1},
    ),
)

POLICY_GRADIENT = METHODS.add(
    "policy_gradient",
    Recipe(
        summary="baseline: REINFORCE from the true reward; nothing is learned",
        paper="Williams, 1992",
        learner={
            "architecture": {"kind": "mlp", "hidden": [16], "activation": "tanh"},
            "initialization": {"kind": "random", "resample": True, "resample_evaluated": True},
            "update": {"kind": "sgd", "rate": 0.3, "steps": 5, "evaluation_steps": 20},
            "loss": {"kind": "policy_gradient"},
        },
        outer={"steps": 0},
    ),
)
