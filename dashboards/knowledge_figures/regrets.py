"""The regret of simulated searches by their trials, with learned settings and at random."""

import torch

from metaloom.dashboards.canvas import legend, name_axes, panel
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Picture, TrialKnowledge


@DRAWERS.register("prediction.regrets")
@torch.no_grad()
def regrets(knowledge: TrialKnowledge) -> Picture | None:
    """Draw the regret after each trial: of each search, and their mean."""
    ours, random = knowledge.matrix("regrets"), knowledge.matrix("regrets_of_random")
    if ours is None or random is None:
        return None
    figure, axes = panel(6.0, 3.6)
    for curves, color, label in ((ours, "C0", "these settings"), (random, "C7", "at random")):
        trials = range(1, curves.shape[1] + 1)
        for curve in curves:
            axes.step(trials, curve, where="post", color=color, linewidth=0.7, alpha=0.5)
        axes.step(trials, curves.mean(0), where="post", color=color, linewidth=2, label=f"{label}, mean")
    name_axes(axes, "", "trial", "regret (1: the median configuration)")
    legend(axes)
    caption = (
        f"The regret of {len(ours)} searches on the first validation table, which falls from {_at(ours, 0)} after one "
        f"trial to {_at(ours, -1)} after {ours.shape[1]}; at random it is {_at(random, -1)} then."
    )
    return Picture("regrets", caption, figure)


def _at(curves: torch.Tensor, trial: int) -> str:
    return f"{float(curves[:, trial].mean()):.4f}"
