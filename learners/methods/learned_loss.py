r"""A learned loss for one task: the network trains on noisy labels by a loss that clean ones have taught.

Bechtle et al., 2021 (ML3), https://arxiv.org/abs/1906.05374; the loss network stands in
``knowledge/learned_loss.py``. Online, as Meta-Weight-Net: at each outer step the loss is moved so that the
next inner step lowers the clean loss, then that step is taken. It starts as a random net plus a little cross entropy,
without which networks on digits with 40% wrong labels lost accuracy again late in training.
"""

from metaloom.learners.base import METHODS, Recipe

LEARNED_LOSS = METHODS.add(
    "learned_loss",
    Recipe(
        summary="learns the loss that the network is trained by",
        paper="Bechtle et al., 2021, https://arxiv.org/abs/1906.05374",
        learner={
            "initialization": {"kind": "random"},
            "update": {"kind": "sgd", "rate": 0.05, "momentum": 0.9, "steps": 1},
            "loss": {"kind": "ml3", "hand": 0.3},
        },
        inner={"mode": "online"},
        outer={"meta_batch": 1, "rate": 3e-4},
    ),
)
