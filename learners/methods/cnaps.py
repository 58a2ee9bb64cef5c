r"""CNAPs and Simple CNAPs: networks build the classifier of a task in one pass over its support set.

Requeima et al., 2019, https://arxiv.org/abs/1906.07697, and Bateni et al., 2020, https://arxiv.org/abs/1912.03432:

    z      = mean over the support set of e(x)             the task vector
    f_z(x) = the body, whose batch norms FiLM scales and shifts by z
    CNAPs: logits_k = w_k . f_z(x) + b_k, generated of mu_k;   Simple CNAPs: minus half the Mahalanobis distance to mu_k

The papers freeze a body that was trained on ImageNet: ``initialization: {kind: pretrained, bundle: PATH}``. By default
it is learned with the rest. Adapting costs one pass of support set and set encoder, and no gradient. Any number of
classes and examples will do, and training on varying ones (``tasks.ways: [3, 10]``) is the papers' way.
"""

from metaloom.learners.base import METHODS, Recipe

METHODS["cnaps"] = Recipe(
    summary="learns to adapt features by FiLM, and to generate the classifier, from the support set",
    paper="Requeima et al., 2019, https://arxiv.org/abs/1906.07697",
    learner={"initialization": {"kind": "learned"}, "prediction": {"kind": "cnaps"}},
    inner={"batch_norm": "frozen"},
    outer={"rate": 0.0005},
)

METHODS["simple_cnaps"] = Recipe(
    summary="learns to adapt features by FiLM; classes are compared by their own covariance",
    paper="Bateni et al., 2020, https://arxiv.org/abs/1912.03432",
    learner={"initialization": {"kind": "learned"}, "prediction": {"kind": "simple_cnaps"}},
    inner={"batch_norm": "frozen"},
    outer={"rate": 0.0005},
)
