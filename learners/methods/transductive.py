"""Heads in which the queries of an episode help to classify one another, each over a learned embedding.

``learner.initialization: {kind: pretrained, bundle: PATH}`` puts any of them over the features of a bundle, and
nothing is then learned but the knobs that say so. The method and its equations stand with each solver, in
``learners/solvers/transductive/``.
"""

from typing import Any

from metaloom.learners.base import METHODS, Recipe

_BATCH_NORM = {"batch_norm": "frozen"}


def _over_features(kind: str, **settings: Any) -> dict[str, Any]:
    return {"initialization": {"kind": "learned"}, "prediction": {"kind": kind, **settings}}


METHODS["pt_map"] = Recipe(
    summary="power transform, then class centres under a balanced assignment of all queries (transductive)",
    paper="Hu, Gripon and Pateux, 2021, https://arxiv.org/abs/2006.03806",
    learner=_over_features("pt_map"),
    inner=_BATCH_NORM,
    outer={"meta_batch": 1},
)

METHODS["ilpc"] = Recipe(
    summary="labels spread along a graph, are balanced, and the cleanest join the support set (transductive)",
    paper="Lazarou, Stathaki and Avrithis, 2021, https://arxiv.org/abs/2012.07962",
    learner=_over_features("ilpc"),
    inner=_BATCH_NORM,
    outer={"meta_batch": 1},
)

METHODS["epnet"] = Recipe(
    summary="features, then labels, spread along a graph over the episode (transductive)",
    paper="Rodriguez, Laradji, Drouin and Lacoste, 2020, https://arxiv.org/abs/2003.04151",
    learner=_over_features("epnet"),
    inner=_BATCH_NORM,
    outer={"meta_batch": 1},
)

METHODS["soft_k_means"] = Recipe(
    summary="class means refined by examples without labels (semi-supervised) or by the queries (transductive)",
    paper="Ren et al., 2018, https://arxiv.org/abs/1803.00676",
    learner=_over_features("soft_k_means"),
    inner=_BATCH_NORM,
    outer={"meta_batch": 1},
)

METHODS["laplacian_shot"] = Recipe(
    summary="nearest class means, with neighbouring queries drawn to the same class (transductive)",
    paper="Ziko, Dolz, Granger and Ben Ayed, 2020, https://arxiv.org/abs/2006.15486",
    learner=_over_features("laplacian_shot"),
    inner=_BATCH_NORM,
    outer={"meta_batch": 1},
)

METHODS["ptn"] = Recipe(
    summary="Poisson learning on a graph over the episode, then cuts of given class sizes (transductive)",
    paper="Huang et al., 2021, https://arxiv.org/abs/2012.10844",
    learner=_over_features("ptn"),
    inner=_BATCH_NORM,
    outer={"meta_batch": 1},
)

METHODS["ica_msp"] = Recipe(
    summary="the few directions in which an episode varies, and means that move to sure queries (transductive)",
    paper="Lichtenstein et al., 2020, https://arxiv.org/abs/2003.06670",
    learner=_over_features("ica_msp"),
    inner=_BATCH_NORM,
    outer={"meta_batch": 1},
)

METHODS["oblique_manifold"] = Recipe(
    summary="prototypes found by descent on spheres, from support and queries together (transductive)",
    paper="Qi, Yu, Lu and Li, 2021, https://arxiv.org/abs/2108.04009",
    learner=_over_features("oblique_manifold"),
    inner=_BATCH_NORM,
    outer={"meta_batch": 1},
)
