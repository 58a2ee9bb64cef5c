"""How far each attribute of a class moves what stands for the class."""

import torch

from metaloom.dashboards.knowledge_facts.base import FACTS, TrialKnowledge
from metaloom.dashboards.knowledge_facts.panels import Bars, LearnedFacts, numbers

BARS = 40


@FACTS.register("prediction.attributes")
@torch.no_grad()
def attribute_weights(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return the weights of the attributes, largest first."""
    weights = knowledge.shown.get("attribute_weights")
    if weights is None or weights.ndim != 1 or not weights.numel() or not bool(weights.isfinite().all()):
        return None
    sizes, order = weights.float().abs().sort(descending=True, stable=True)
    names = _names(knowledge, len(sizes))
    largest = names[int(order[0])]
    caption = (
        f"The {min(BARS, len(sizes))} largest weights of {len(sizes)} attributes of a class. Attribute {largest} "
        f"has the largest, {float(sizes[0]):.3g}; the mean is {float(sizes.mean()):.3g}."
    )
    drawn = tuple(names[one] for one in order[:BARS].tolist())
    return LearnedFacts("attribute-weights", caption, (Bars("", "attribute", "weight", drawn, numbers(sizes[:BARS])),))


def _names(knowledge: TrialKnowledge, count: int) -> list[str]:
    """Return the names of the attributes, as the table of classes has them; their numbers where they have none."""
    described = knowledge.task.class_features
    named = () if described is None else described.features
    return list(named) if len(named) == count else list(map(str, range(count)))
