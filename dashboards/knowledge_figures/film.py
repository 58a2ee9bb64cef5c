"""The factors by which FiLM adapts the channels of a network to a task, layer by layer."""

import torch

from metaloom.dashboards.canvas import name_axes, panel
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Picture, TrialKnowledge
from metaloom.learners.tensors import part


@DRAWERS.register("prediction.film")
@torch.no_grad()
def film_scales(knowledge: TrialKnowledge) -> Picture | None:
    """Draw each channel's factor, by layer."""
    found = part(knowledge.shown, "film", optional=True)
    layers = {name: one.float().flatten() for name, one in found.items() if one.numel() and one.isfinite().all()}
    if not layers:
        return None
    figure, axes = panel(1.5 + 0.9 * len(layers), 3.8)
    for place, factors in enumerate(layers.values()):
        spread = torch.linspace(-0.3, 0.3, len(factors)) if len(factors) > 1 else torch.zeros(1)
        axes.scatter(place + spread, factors, s=8)
    axes.axhline(1.0, color="black", lw=0.8)
    axes.set_xticks(range(len(layers)), list(layers), rotation=30, ha="right")
    name_axes(axes, "", "layer", "factor of a channel")
    moved = {name: float((factors - 1).abs().mean()) for name, factors in layers.items()}
    most = max(moved, key=lambda name: moved[name])
    caption = (
        f"FiLM's factors for a validation episode, of each channel in {len(layers)} layers; 1 changes nothing. They "
        f"are farthest from it in {most}, by {moved[most]:.3g} on average."
    )
    return Picture("film-scales", caption, figure)
