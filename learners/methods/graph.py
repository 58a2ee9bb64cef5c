r"""Graph neural networks: learn how the examples of an episode pass messages to one another.

Garcia and Bruna, 2018, https://arxiv.org/abs/1711.04043: nodes with features and labels, edges that are learned, three
blocks. Examples without labels (``tasks.unlabelled``) are nodes too: semi-supervised learning, their section 5.2.

Batch norm has its running averages where it is evaluated.
"""

from metaloom.learners.base import METHODS, Recipe

METHODS["graph"] = Recipe(
    summary="learns message passing among the examples of a task, of which some may lack labels",
    paper="Garcia and Bruna, 2018, https://arxiv.org/abs/1711.04043",
    learner={"initialization": {"kind": "learned"}, "prediction": {"kind": "graph"}},
    inner={"batch_norm": "frozen"},
    outer={"meta_batch": 1},
)
