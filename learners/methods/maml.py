r"""Model-agnostic meta-learning: learn the weights to start from.

Finn, Abbeel and Levine, 2017, https://arxiv.org/abs/1703.03400, section 2.2 and equation 1:

    theta_i = phi - alpha * grad_phi L_support(phi)
    phi    <- phi - beta * grad_phi sum_i L_query(theta_i)

``first_order_maml`` (section 5.2) holds theta_i - phi constant: no second derivatives. Its loss of
accuracy is small on miniImageNet, but not on the sine tasks (docs/reproductions.md).
"""

from metaloom.learners.base import METHODS, Recipe

PAPER = "Finn, Abbeel and Levine, 2017, https://arxiv.org/abs/1703.03400"

MAML = METHODS.add(
    "maml",
    Recipe(
        summary="learns the initialization through every inner step (exact second order)",
        paper=PAPER,
        learner={"initialization": {"kind": "learned"}, "update": {"kind": "sgd"}},
        outer={"hypergradient": {"kind": "unroll"}},
    ),
)

FIRST_ORDER_MAML = METHODS.add(
    "first_order_maml",
    Recipe(
        summary="learns the initialization, holding the inner loop's displacement constant",
        paper=PAPER,
        learner={"initialization": {"kind": "learned"}, "update": {"kind": "sgd"}},
        outer={"hypergradient": {"kind": "first_order"}},
    ),
)
