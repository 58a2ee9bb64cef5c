"""The factors by which FiLM adapts the channels of a network to a task, layer by layer."""

import torch

from metaloom.dashboards.knowledge_facts.base import FACTS, TrialKnowledge
from metaloom.dashboards.knowledge_facts.panels import LearnedFacts, Rows, numbers
from metaloom.learners.tensors import part


@FACTS.register("prediction.film")
@torch.no_grad()
def film_scales(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return each channel's factor, by layer."""
    found = part(knowledge.shown, "film", optional=True)
    layers = {name: one.float().flatten() for name, one in found.items() if one.numel() and one.isfinite().all()}
    if not layers:
        return None
    groups = (("channels", tuple(numbers(factors) for factors in layers.values())),)
    panel = Rows("", "layer", "factor of a channel", tuple(layers), groups, level=1.0, standing=True)
    moved = {name: float((factors - 1).abs().mean()) for name, factors in layers.items()}
    most = max(moved, key=lambda name: moved[name])
    caption = (
        f"FiLM's factors for a validation episode, of each channel in {len(layers)} layers; 1 changes nothing. They "
        f"are farthest from it in {most}, by {moved[most]:.3g} on average."
    )
    return LearnedFacts("film-scales", caption, (panel,))
