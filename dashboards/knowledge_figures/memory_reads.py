"""How an external memory is read, step by step."""

import torch

from metaloom.dashboards.canvas import name_axes, panel
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Picture, TrialKnowledge


@DRAWERS.register("prediction.reads")
@torch.no_grad()
def reads(knowledge: TrialKnowledge) -> Picture | None:
    """Draw the weight with which each slot is read at each step."""
    weights = knowledge.matrix("reads")
    if weights is None:
        return None
    figure, axes = panel(6.0, 4.5)
    figure.colorbar(axes.imshow(weights.T, aspect="auto", cmap="viridis", interpolation="nearest"))
    name_axes(axes, "", "step", "slot of the memory")
    axes.grid(visible=False)
    shares = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
    slots = float((1 / shares.square().sum(1).clamp_min(1e-12)).clamp_max(weights.shape[1]).mean())
    used = len(set(weights.argmax(1).tolist()))
    caption = (
        f"How the {weights.shape[1]} slots of the memory are read over the {len(weights)} steps of a validation "
        f"episode: a read is spread over {slots:.1f} slots on average (the inverse sum of its squared shares), and "
        f"{used} different slots are the most read at some step."
    )
    return Picture("memory-reads", caption, figure)
