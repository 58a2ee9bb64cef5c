r"""Methods whose head is the solution of a convex problem on the support set; the embedding is learned through it.

R2-D2: Bertinetto, Henriques, Torr and Vedaldi, 2019, https://arxiv.org/abs/1805.08136, equations 4 to 6:

    W = X^T (X X^T + n lambda I)^-1 Y,    outputs(x) = alpha x W + beta

MetaOptNet: Lee, Maji, Ravichandran and Soatto, 2019, https://arxiv.org/abs/1904.03758, equation 10: the same with the
multi-class support vector machine of Crammer and Singer (``loss: hinge``) or ridge regression (``loss: squared``).

alpha starts at 10, where scores between 0 and 1 give the softmax a slope; the published code starts it at 1e-4.
"""

from metaloom.learners.base import METHODS, Recipe

METHODS["r2d2"] = Recipe(
    summary="learns an embedding in which ridge regression on the support set generalizes",
    paper="Bertinetto, Henriques, Torr and Vedaldi, 2019, https://arxiv.org/abs/1805.08136",
    learner={
        "initialization": {"kind": "learned"},
        "prediction": {
            "kind": "ridge",
            "penalty": {"learn": {"start": 1.0}},
            "scale": {"learn": {"start": 10.0}},
        },
    },
    inner={"batch_norm": "frozen"},
    outer={"meta_batch": 1},
)

METHODS["metaoptnet"] = Recipe(
    summary="learns an embedding in which a support vector machine on the support set generalizes",
    paper="Lee, Maji, Ravichandran and Soatto, 2019, https://arxiv.org/abs/1904.03758",
    learner={
        "initialization": {"kind": "learned"},
        "prediction": {"kind": "svm", "scale": {"learn": {"start": 1.0}}},
    },
    inner={"batch_norm": "frozen"},
    outer={"meta_batch": 1},
)
