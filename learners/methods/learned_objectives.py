r"""What the inner loop minimizes is learned: a loss, or the shape of a reward.

``learned_loss`` (Bechtle et al., 2021, ML3, https://arxiv.org/abs/1906.05374; the loss network is in
``knowledge/learned_loss.py``) trains a network on noisy labels by a loss that clean ones train, online: at each outer
step the loss is moved so that the next inner step lowers the clean loss, then that step is taken. It starts as a random
net plus a little cross entropy, without which networks on digits with 40% wrong labels lost accuracy late in training.

``learned_reward`` learns a potential for the reward of a policy-gradient learner. Potential-based shaping is Ng, Harada
and Russell's, 1999; learning it by the gradient of the true return through the policy's own updates is Zheng, Oh and
Singh's, 2018, https://arxiv.org/abs/1804.06459, and Bechtle et al.'s, 2021. The formulas are in
``knowledge/policy_gradient.py``. Each outer step and each evaluated task draws a new policy, so that the potential is
not specific to one.
"""

from typing import Any

from metaloom.learners.base import METHODS, Recipe

POLICY: dict[str, dict[str, Any]] = {
    "architecture": {"kind": "mlp", "hidden": [16], "activation": "tanh"},
    "initialization": {"kind": "random", "resample": True, "resample_evaluated": True},
    "update": {"kind": "sgd", "rate": 0.3, "steps": 5, "evaluation_steps": 20},
}

METHODS["learned_loss"] = Recipe(
    summary="learns the loss that the network is trained by",
    paper="Bechtle et al., 2021, https://arxiv.org/abs/1906.05374",
    learner={
        "initialization": {"kind": "random"},
        "update": {"kind": "sgd", "rate": 0.05, "momentum": 0.9, "steps": 1},
        "loss": {"kind": "ml3", "hand": 0.3},
    },
    inner={"mode": "online"},
    outer={"meta_batch": 1, "rate": 3e-4},
)

METHODS["learned_reward"] = Recipe(
    summary="learns a potential that shapes the reward of a policy-gradient learner",
    paper="Zheng et al., 2018, https://arxiv.org/abs/1804.06459",
    learner={**POLICY, "loss": {"kind": "shaped_policy_gradient"}},
    # only policies that come near the goal by chance have a large hypergradient: hence many tasks for each outer step,
    # and a clip below the usual norm, so that one of them cannot undo what the others have taught
    outer={"hypergradient": {"kind": "unroll"}, "strategy": "vmap", "meta_batch": 16, "rate": 0.01, "clip": 0.1},
)

METHODS["policy_gradient"] = Recipe(
    summary="baseline: REINFORCE from the true reward; nothing is learned",
    paper="Williams, 1992",
    learner={**POLICY, "loss": {"kind": "policy_gradient"}},
    outer={"steps": 0},
)
