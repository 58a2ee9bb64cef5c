r"""Learned initializations: model-agnostic meta-learning, its approximations, and its extensions.

``maml`` learns the weights to start from: Finn, Abbeel and Levine, 2017, https://arxiv.org/abs/1703.03400, section 2.2
and equation 1:

    theta_i = phi - alpha * grad_phi L_support(phi)
    phi    <- phi - beta * grad_phi sum_i L_query(theta_i)

``first_order_maml`` (section 5.2) holds theta_i - phi constant: no second derivatives. It is nearly as accurate on
miniImageNet, and less so on the sine tasks (docs/reproductions.md).

``anil`` (almost no inner loop; Raghu et al., 2020, https://arxiv.org/abs/1909.09157, section 4) takes the inner
gradient for the last layer alone. It has about MAML's accuracy in few-shot classification at a fraction of the inner
loop's cost, and is worse where features must change (the sine tasks).

``meta_sgd`` learns a rate, with sign, for every parameter (Li, Zhou, Chen and Li, 2017, https://arxiv.org/abs/1707.09835,
equation 3 and algorithm 1): theta' = theta - alpha o grad L_support(theta), alpha of theta's shape. It takes one inner
step; the rates start in U[0.005, 0.1]. It diverges when it takes more steps than it was trained for.

``maml_plus_plus`` (Antoniou, Edwards and Storkey, 2019, https://arxiv.org/abs/1810.09502, section 4): every tensor has
a learned rate for every step (LSLR), the outer loss is a weighted sum over the inner steps that fades to the last one
(MSL), and batch norm has its own gamma and beta for every step, which the inner loop does not move. As in the reference
code, a query pass uses its own batch's statistics: transductive.

``imaml`` takes the gradient at the solution of a proximal inner problem: Rajeswaran, Finn, Kakade and Levine, 2019,
https://arxiv.org/abs/1909.04630, equations 3 and 6:

    theta*(phi) = argmin_theta L_support(theta) + lambda / 2 |theta - phi|^2
    dF/dphi     = (I + H_support(theta*) / lambda)^-1 grad L_query(theta*)

The proximal term is in the inner loop (the public reference code omits it), and the linear system is the equation's,
solved by conjugate gradient. Memory does not grow with the inner steps.

The equation holds at a solution, so the settings reach one on the sinusoid tasks: the inner gradient's norm is about
1e-14 after 60 steps with tanh. With ReLU it stayed between 0.06 and 2.6 on most tasks, at every tried rate and proximal
strength, and up to a strength of 10 conjugate gradient met negative curvature. A smaller ``inner.proximal`` adapts
further and needs more steps.

``reptile`` moves the start towards where ordinary training on each task ends: Nichol, Achiam and Schulman, 2018,
https://arxiv.org/abs/1803.02999, algorithm 2:

    phi <- phi + epsilon * mean_i (theta_i,T - phi)

As in the paper the outer loop is plain SGD whose rate epsilon falls from 1 to 0, and the inner loop
Adam without first moment. The inner loop trains on all of a task's data, support and query.
"""

from metaloom.learners.base import METHODS, Recipe

MAML = "Finn, Abbeel and Levine, 2017, https://arxiv.org/abs/1703.03400"
IMAML_SUMMARY = "learns the initialization through the solution of a proximal inner problem"
IMAML = "Rajeswaran, Finn, Kakade and Levine, 2019, https://arxiv.org/abs/1909.04630"
LEARNED, UNROLL = {"kind": "learned"}, {"kind": "unroll"}

METHODS["maml"] = Recipe(
    summary="learns the initialization through every inner step (exact second order)",
    paper=MAML,
    learner={"initialization": LEARNED, "update": {"kind": "sgd"}},
    outer={"hypergradient": UNROLL},
)

METHODS["first_order_maml"] = Recipe(
    summary="learns the initialization, holding the inner loop's displacement constant",
    paper=MAML,
    learner={"initialization": LEARNED, "update": {"kind": "sgd"}},
    outer={"hypergradient": {"kind": "first_order"}},
)

METHODS["anil"] = Recipe(
    summary="learns the initialization; the inner loop adapts the head alone",
    paper="Raghu, Raghu, Bengio and Vinyals, 2020, https://arxiv.org/abs/1909.09157",
    learner={"initialization": LEARNED, "update": {"kind": "sgd", "adapt": "head"}},
    outer={"hypergradient": UNROLL},
)

METHODS["meta_sgd"] = Recipe(
    summary="learns the initialization and one rate per parameter, for a single inner step",
    paper="Li, Zhou, Chen and Li, 2017, https://arxiv.org/abs/1707.09835",
    learner={
        "initialization": LEARNED,
        "update": {
            "kind": "sgd",
            "rate": {"learn": {"per": "parameter", "start": 0.0525}},
            "start_spread": 0.905,
            "steps": 1,
        },
    },
    outer={"hypergradient": UNROLL},
)

METHODS["maml_plus_plus"] = Recipe(
    summary="MAML with learned per-layer per-step rates, a multi-step loss and per-step batch norm",
    paper="Antoniou, Edwards and Storkey, 2019, https://arxiv.org/abs/1810.09502",
    learner={
        "initialization": LEARNED,
        "update": {"kind": "sgd", "rate": {"learn": {"per": "layer_step", "start": 0.1}}, "steps": 5},
    },
    inner={"batch_norm": "per_step", "multi_step_loss": 5000},
    outer={"hypergradient": UNROLL, "schedule": "cosine"},
)

METHODS["imaml"] = Recipe(
    summary=IMAML_SUMMARY,
    paper=IMAML,
    learner={
        "architecture": {"kind": "mlp", "activation": "tanh"},
        "initialization": {"kind": "learned"},
        "update": {"kind": "sgd", "rate": 0.02, "momentum": 0.5, "steps": 60},
    },
    inner={"proximal": 10.0},
    outer={"hypergradient": {"kind": "conjugate_gradient", "iterations": 30}},
    stored=Recipe(
        summary=IMAML_SUMMARY,
        paper=IMAML,
        learner={"initialization": {"kind": "learned"}, "update": {"kind": "sgd", "steps": 16}},
        inner={"proximal": 2.0},
        outer={"hypergradient": {"kind": "conjugate_gradient", "iterations": 5}},
    ),
)

METHODS["reptile"] = Recipe(
    summary="moves the initialization towards the end of ordinary training on each task",
    paper="Nichol, Achiam and Schulman, 2018, https://arxiv.org/abs/1803.02999",
    learner={
        "initialization": {"kind": "learned"},
        "update": {"kind": "adam", "rate": 1e-3, "beta1": 0.0, "steps": 5, "evaluation_steps": 50},
        "data": {"kind": "whole_task"},
    },
    outer={"hypergradient": {"kind": "displacement"}, "optimizer": "sgd", "rate": 1.0, "schedule": "linear"},
)
