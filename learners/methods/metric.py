r"""Learners that compare a query with the support set, beside prototypical networks; no inner steps.

* ``siamese`` (Koch et al., 2015): a network of pairs, trained to tell whether two examples are of one class.
* ``matching``, ``matching_fce`` (Vinyals et al., 2016): attention by cosine to the support set, without and with full
  context embeddings, which an LSTM over the support set makes.
* ``knn``, ``knn_inputs``: the vote of the k nearest neighbours, by an embedding learned for it (Goldberger et al.,
  2004), or by the raw inputs.
"""

from metaloom.learners.base import METHODS, Recipe

VINYALS = "Vinyals et al., 2016, https://arxiv.org/abs/1606.04080"

METHODS["siamese"] = Recipe(
    summary="learns to tell whether two examples are of one class",
    paper="Koch, Zemel and Salakhutdinov, 2015, Siamese neural networks for one-shot image recognition",
    learner={"initialization": {"kind": "learned"}, "prediction": {"kind": "siamese"}},
    inner={"batch_norm": "frozen"},
    outer={"meta_batch": 1},
)

METHODS["matching"] = Recipe(
    summary="learns an embedding by attention to the support labels",
    paper=VINYALS,
    learner={"initialization": {"kind": "learned"}, "prediction": {"kind": "matching_networks"}},
    inner={"batch_norm": "frozen"},
    outer={"meta_batch": 1},
)

METHODS["matching_fce"] = Recipe(
    summary="learns embeddings in the context of the support set, and attention to its labels",
    paper=VINYALS,
    learner={"initialization": {"kind": "learned"}, "prediction": {"kind": "full_context"}},
    inner={"batch_norm": "frozen"},
    outer={"meta_batch": 1},
)

METHODS["knn"] = Recipe(
    summary="learns an embedding for the vote of the k nearest neighbours",
    paper="Goldberger, Roweis, Hinton and Salakhutdinov, 2004, Neighbourhood components analysis",
    learner={"initialization": {"kind": "learned"}, "prediction": {"kind": "knn"}},
    inner={"batch_norm": "frozen"},
    outer={"meta_batch": 1},
)

METHODS["knn_inputs"] = Recipe(
    summary="baseline: the vote of the k nearest neighbours by the raw inputs",
    paper="Cover and Hart, 1967, Nearest neighbor pattern classification",
    learner={"prediction": {"kind": "knn_inputs"}},
    outer={"steps": 0},
)

METHODS["time_warping"] = Recipe(
    summary="baseline: the nearest neighbour of a series by dynamic time warping",
    paper="Sakoe and Chiba, 1978, https://doi.org/10.1109/TASSP.1978.1163055",
    learner={"prediction": {"kind": "time_warping"}},
    outer={"steps": 0},
)
