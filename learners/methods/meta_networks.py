r"""Meta networks: a meta learner reads the losses' gradients, and generates the fast weights of a base learner.

Munkhdalai and Yu, 2017, https://arxiv.org/abs/1703.00837, algorithm 1:

    Q* = d(grad_Q of the support set),    W*_i = m(grad_W of example i)
    p(y | x) = b(W, sum_i a_i(x) W*_i, u(Q, Q*, x))

No inner steps: the gradients are input to networks, which are learned with the slow weights. The order of the support
set matters to d where it is an LSTM (``summary: lstm``).
"""

from metaloom.learners.base import METHODS, Recipe

METHODS["meta_networks"] = Recipe(
    summary="learns slow weights, and networks that turn the support set's gradients into fast ones",
    paper="Munkhdalai and Yu, 2017, https://arxiv.org/abs/1703.00837",
    learner={"initialization": {"kind": "learned"}, "prediction": {"kind": "meta_networks"}},
    inner={"batch_norm": "frozen"},
)
