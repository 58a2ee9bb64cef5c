"""A policy's trajectories before and after its inner steps, on one validation task."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from metaloom.dashboards.canvas import canvas, legend, name_axes
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Picture, TrialKnowledge
from metaloom.learners.environments import make_environment
from metaloom.workers.data import gymnasium_environment  # noqa: F401 (registers its environment)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWN = 10  # trajectories


@DRAWERS.register("prediction.trajectories")
@torch.no_grad()
def trajectories(knowledge: TrialKnowledge) -> Picture | None:
    """Draw where a policy goes in the plane, or elsewhere how its rewards add up."""
    parts = [_shown(knowledge, name) for name in ("before", "after")]
    if not knowledge.task.environment or any(part is None for part in parts):
        return None
    (before, early), (after, late) = [part[:2] for part in parts if part is not None]
    figure = canvas(7.5, 3.6)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    goal = make_environment(knowledge.task).goal(knowledge.shown.get("parameters", torch.zeros(0)))
    pairs = ((left, "before adaptation", before, early), (right, "after", after, late))
    for axes, title, states, rewards in pairs:
        (_summed if goal is None else _plane)(axes, title, states, rewards)
    if goal is not None:
        for axes in (left, right):
            axes.plot(*goal.tolist(), "*", color="black", markersize=11, label="goal")
            axes.set_aspect("equal")
        legend(right)
    gained = float(late.sum(1).mean()), float(early.sum(1).mean())
    task = _task(knowledge)
    caption = (
        f"Trajectories of one validation task{task}: the return is {gained[1]:.4g} on average before adaptation and "
        f"{gained[0]:.4g} after it. The first {min(DRAWN, len(before))} of {len(before)} are drawn"
        f"{', as the sum of their rewards.' if goal is None else '.'}"
    )
    return Picture("trajectories", caption, figure)


def _shown(knowledge: TrialKnowledge, when: str) -> tuple[Tensor, Tensor] | None:
    """Return the trajectories' states, kept at the last one after an end, and their rewards; None where not shown."""
    names = [f"{what}_{when}" for what in ("path", "rewards", "active")]
    found = [knowledge.shown.get(name) for name in names]
    if any(one is None or not bool(one.isfinite().all()) for one in found):
        return None
    path, rewards, active = (one.float() for one in found if one is not None)
    if path.ndim != 3 or rewards.shape != active.shape or path.shape[:2] != (len(rewards), rewards.shape[1] + 1):
        return None
    last = active.sum(1).long()  # the state after the last step that counts
    index = torch.arange(path.shape[1])[None, :].minimum(last[:, None])
    return path.gather(1, index[..., None].expand_as(path)), rewards


def _plane(axes: "Axes", title: str, states: Tensor, rewards: Tensor) -> None:
    for one in states[:DRAWN]:
        axes.plot(one[:, 0], one[:, 1], linewidth=1, alpha=0.7)
    axes.plot(states[0, :1, 0], states[0, :1, 1], "o", color="black", markersize=4, label="start")
    name_axes(axes, title, "x", "y")


def _summed(axes: "Axes", title: str, states: Tensor, rewards: Tensor) -> None:
    for one in rewards[:DRAWN].cumsum(1):
        axes.plot(range(1, len(one) + 1), one, linewidth=1, alpha=0.7)
    name_axes(axes, title, "step", "sum of rewards so far")


def _task(knowledge: TrialKnowledge) -> str:
    values = knowledge.shown.get("parameters")
    if values is None:
        return ""
    named = zip(knowledge.task.parameters, values.tolist(), strict=True)
    told = [f"{name} {value:.3g}" for name, value in named if name != "seed"]
    return f" ({', '.join(told)})"
