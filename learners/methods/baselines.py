r"""What the claims are compared with.

* ``nearest_neighbour``: cosine nearest neighbour on the raw inputs; nothing is learned.
* ``constant``: the mean target of the support set, or the frequencies of its classes, whatever the query.
* ``fine_tuning``: the same network and inner loop from random weights.
* ``joint_pretraining``: one network trained on all meta-train classes (or tasks) together, then fine-tuned
  with a fresh head: transfer learning.
* ``cross_entropy``: plain training on the (noisy) training batches of a single task, no meta-knowledge.
"""

from metaloom.learners.base import METHODS, Recipe

METHODS["nearest_neighbour"] = Recipe(
    summary="baseline: cosine nearest neighbour on the raw inputs",
    paper="the floor that any learner must beat",
    learner={"prediction": {"kind": "nearest_neighbour"}},
    outer={"steps": 0},
)

METHODS["constant"] = Recipe(
    summary="baseline: the mean target, or the most frequent class, of the support set",
    paper="the loss that any regression must beat",
    learner={"prediction": {"kind": "constant"}},
    outer={"steps": 0},
)

METHODS["fine_tuning"] = Recipe(
    summary="baseline: gradient steps from random weights",
    paper="the same network and inner loop with nothing meta-learned",
    learner={"initialization": {"kind": "random"}, "update": {"kind": "sgd", "rate": 0.1, "steps": 10}},
    outer={"steps": 0},
)

METHODS["joint_pretraining"] = Recipe(
    summary="baseline: train on all meta-train classes or tasks jointly, then fine-tune",
    paper="transfer learning, as in Chen et al., 2019, https://arxiv.org/abs/1904.04232",
    learner={
        "initialization": {"kind": "learned"},
        "update": {"kind": "sgd", "rate": 0.02, "steps": 10},
        "prediction": {"kind": "joint"},
    },
)

METHODS["cross_entropy"] = Recipe(
    summary="baseline: plain training of a single task, without meta-knowledge",
    paper="empirical risk minimization",
    learner={
        "initialization": {"kind": "random"},
        "update": {"kind": "sgd", "rate": 0.05, "momentum": 0.9, "steps": 1},
        "weighting": {"kind": "uniform"},
    },
    inner={"mode": "online"},
    outer={"meta_batch": 1},
)
