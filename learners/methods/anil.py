r"""Almost no inner loop: the body is meta-learned and fixed, only the head adapts.

Raghu et al., 2020, https://arxiv.org/abs/1909.09157, section 4: MAML whose inner gradient is taken
for the last layer alone. About MAML's accuracy in few-shot classification at a fraction of the inner
loop's cost; worse where features must change (the sine tasks).
"""

from metaloom.learners.base import METHODS, Recipe

ANIL = METHODS.add(
    "anil",
    Recipe(
        summary="learns the initialization; the inner loop adapts the head alone",
        paper="Raghu, Raghu, Bengio and Vinyals, 2020, https://arxiv.org/abs/1909.09157",
        learner={"initialization": {"kind": "learned"}, "update": {"kind": "sgd", "adapt": "head"}},
        outer={"hypergradient": {"kind": "unroll"}},
    ),
)
