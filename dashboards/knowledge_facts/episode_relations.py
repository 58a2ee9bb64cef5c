"""Who looks at whom in an episode: attention, relations of queries and classes, and the edges of a graph."""

import torch
from torch import Tensor

from metaloom.dashboards.knowledge_facts.base import FACTS, TrialKnowledge
from metaloom.dashboards.knowledge_facts.panels import Heat, LearnedFacts

LAYERS_DRAWN = 4


@FACTS.register("prediction.attention")
@torch.no_grad()
def attention(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return the weight of each support example for each query, both in the order of their classes."""
    weights = knowledge.matrix("attention")
    if weights is None:
        return None
    labels, asked = knowledge.labels("labels", weights.shape[1]), knowledge.labels("query_labels", len(weights))
    if labels is None or asked is None:
        return None
    own = float((weights * (asked[:, None] == labels)).sum() / weights.sum())
    ordered = weights[asked.argsort(stable=True)][:, labels.argsort(stable=True)]
    caption = (
        f"The attention of {len(asked)} queries (rows) to {len(labels)} support examples (columns) of a validation "
        f"episode, both by class: {own:.0%} of it goes to examples of the query's own class."
    )
    panel = Heat("", "support example, by class", "query, by class", ordered, "weight")
    return LearnedFacts("episode-attention", caption, (panel,))


@FACTS.register("prediction.relation")
@torch.no_grad()
def relation(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return the score of each query and class."""
    scores = knowledge.matrix("relation")
    asked = None if scores is None else knowledge.labels("query_labels", len(scores))
    if scores is None or asked is None:
        return None
    right = int((scores.argmax(1) == asked).sum())
    caption = (
        f"The relation of {len(asked)} queries (rows, by class) to the {scores.shape[1]} classes of a validation "
        f"episode: {right} queries have their largest score at their own class."
    )
    panel = Heat("", "class", "query, by class", scores[asked.argsort(stable=True)], "score")
    return LearnedFacts("episode-relation", caption, (panel,))


@FACTS.register("prediction.adjacency")
@torch.no_grad()
def adjacency(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return the learned edges of an episode's graph, layer by layer; its support examples in the order of classes."""
    edges = knowledge.shown.get("adjacency")
    if edges is None or not bool(edges.isfinite().all()):
        return None
    layers = (edges.unsqueeze(0) if edges.ndim == 2 else edges).float()
    labels = knowledge.shown.get("labels")
    if layers.ndim != 3 or layers.shape[1] != layers.shape[2] or labels is None or labels.ndim != 1:
        return None
    count = len(labels)
    if not 0 < count <= layers.shape[1]:
        return None
    order = torch.cat([labels.argsort(stable=True), torch.arange(count, layers.shape[1])])
    drawn = layers[:LAYERS_DRAWN][:, order][:, :, order]
    panels = [Heat(f"layer {number}", "node", "node", one, "weight") for number, one in enumerate(drawn, 1)]
    others = layers.shape[1] - count
    caption = (
        f"The edges of a validation episode's graph: {count} support examples, by class, and then "
        f"{others} other {'node' if others == 1 else 'nodes'}."
    )
    words = caption + _within_classes(layers[-1, :count, :count], labels)
    return LearnedFacts("episode-adjacency", words, tuple(panels), beside=True)


def _within_classes(edges: Tensor, labels: Tensor) -> str:
    """Say how much of the weight lies within classes; empty where each has one example, between which is no edge."""
    if len(set(labels.tolist())) == len(labels):
        return ""
    among = edges * (1 - torch.eye(len(labels)))
    own = float((among * (labels[:, None] == labels)).sum() / among.sum().clamp_min(1e-12))
    between = "between different support examples is between examples of one class"
    return f" In the last layer {own:.0%} of the weight {between}."
