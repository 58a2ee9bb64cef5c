r"""Meta-Weight-Net: learn how much a noisy example should count, from a few clean ones.

Shu et al., 2019, https://arxiv.org/abs/1902.07379, equations 4 to 7. Online: at each outer step

    theta^   = one inner step from theta with the weights V(l_i; phi)
    phi     <- phi - beta * grad_phi L_clean(theta^)
    theta   <- the same inner step with the new phi

As in the reference a batch's weights are divided by their sum, and the net's Adam has rate 1e-3 and
weight decay 1e-4: the decay brings the net back from a saturated sigmoid. The look-ahead is the real
inner step, momentum and decay included, where the reference takes a plain one; the hypergradient is
exact for what is then done.

The division makes the weight of an example that is fitted already a step size for all others, so that the
net keeps lowering it while that helps. Where the clean set is small and soon fitted (50 digits, 1,500
steps), a rate of 1e-3 may bring the curve down at small losses first, and the noise is then fitted; at
3e-4 it goes on falling (claim V7 prints what clean labels then weigh over wrong ones).
"""

from metaloom.learners.base import METHODS, Recipe

META_WEIGHT_NET = METHODS.add(
    "meta_weight_net",
    Recipe(
        summary="learns a net that weighs each training example by its loss",
        paper="Shu et al., 2019, https://arxiv.org/abs/1902.07379",
        learner={
            "initialization": {"kind": "random"},
            "update": {"kind": "sgd", "rate": 0.05, "momentum": 0.9, "steps": 1},
            "weighting": {"kind": "meta_weight_net", "hidden": 100},
        },
        inner={"mode": "online"},
        outer={"hypergradient": {"kind": "unroll"}, "meta_batch": 1, "rate": 1e-3, "weight_decay": 1e-4},
    ),
)
