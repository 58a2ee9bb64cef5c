"""The examples of a distilled training set, as pictures."""

import torch
from torch import Tensor

from metaloom.dashboards.knowledge_facts.base import FACTS, TrialKnowledge
from metaloom.dashboards.knowledge_facts.panels import Images, LearnedFacts
from metaloom.dashboards.knowledge_facts.scaled import as_pictures, on_one_scale
from metaloom.learners.knowledge.distilled_data import DistilledData

ROWS = 10  # examples shown of a class; the caption counts the rest


@FACTS.register("data.distilled")
def distilled(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return the learned examples, one column per class."""
    for data, phi in knowledge.members("data"):
        if isinstance(data, DistilledData) and "examples" in phi:  # a snapshot may lack what is large
            per_class = data.config.per_class
            labels = torch.softmax(phi["labels"], -1) if "labels" in phi else None
            panel = examples_by_class(phi["examples"], per_class)
            return LearnedFacts("distilled-data", _words(phi["examples"], per_class, labels), (panel,))
    return None


def examples_by_class(examples: Tensor, per_class: int) -> Images:
    """Return examples [classes * per_class, *features] on one scale, one column per class."""
    pictures = on_one_scale(as_pictures(examples.detach()))
    classes, rows = len(examples) // per_class, min(per_class, ROWS)
    by_class = pictures.reshape(classes, per_class, *pictures.shape[1:])
    return Images("", tuple(map(str, range(classes))), tuple(("", by_class[:, row]) for row in range(rows)))


def _words(examples: Tensor, per_class: int, labels: Tensor | None) -> str:
    shown = "" if per_class <= ROWS else f" (the first {ROWS} of each are shown)"
    caption = f"{len(examples)} learned examples, {per_class} of each class{shown}, in place of the training set."
    if labels is not None:
        own = labels[torch.arange(len(labels)), torch.arange(len(labels)) // per_class]
        caption += f" Their learned labels give their own class {float(own.mean()):.2f} on average."
    return caption
