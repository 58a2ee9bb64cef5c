"""How far a learned initialization has moved from its start, layer by layer."""

import torch

from metaloom.dashboards.knowledge_facts.base import FACTS, TrialKnowledge
from metaloom.dashboards.knowledge_facts.panels import Bars, LearnedFacts, numbers
from metaloom.learners.tensors import part


@FACTS.register("initialization.distance")
@torch.no_grad()
def distance(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return each layer's distance from its start, relative to the start's length where that is not 0."""
    moved = {
        name: one.double()
        for name, one in part(knowledge.shown, "moved", optional=True).items()
        if one.shape == (2,) and bool(one.isfinite().all())
    }
    if not moved:
        return None
    lengths = torch.stack(list(moved.values()))  # [layers, 2]: the distance, and the start's length
    relative = lengths[:, 0] / lengths[:, 1]
    names = tuple(moved)
    panels = [Bars("", "", "distance from the start", names, numbers(lengths[:, 0]), lying=True)]
    known = [index for index, one in enumerate(lengths[:, 1].tolist()) if one > 0]
    whole = lengths.square().sum(0).sqrt()
    caption = f"The learned initialization lies {float(whole[0]):.3g} from its start, whose length is {whole[1]:.3g}."
    if known:
        some = tuple(names[index] for index in known)
        panels.append(Bars("", "", "distance over the start's length", some, numbers(relative[known]), lying=True))
        low, high = min(known, key=lambda one: relative[one]), max(known, key=lambda one: relative[one])
        caption += (
            f" By its own length {names[high]} has moved the most ({float(relative[high]):.3g}), {names[low]} the "
            f"least ({float(relative[low]):.3g})."
        )
    return LearnedFacts("initialization-distance", caption, tuple(panels))
