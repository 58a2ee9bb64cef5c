"""A policy's trajectories before and after its inner steps, on one validation task."""

import torch
from torch import Tensor

from metaloom.dashboards.knowledge_facts.base import FACTS, TrialKnowledge
from metaloom.dashboards.knowledge_facts.panels import LearnedFacts, Line, Lines, NamedPoint, numbers
from metaloom.learners.environments import make_environment
from metaloom.workers.data import gymnasium_environment  # noqa: F401 (registers its environment)

DRAWN = 10  # trajectories


@FACTS.register("prediction.trajectories")
@torch.no_grad()
def trajectories(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return where a policy goes in the plane, or elsewhere how its rewards add up."""
    parts = [_shown(knowledge, name) for name in ("before", "after")]
    if not knowledge.task.environment or any(part is None for part in parts):
        return None
    (before, early), (after, late) = [part[:2] for part in parts if part is not None]
    goal = make_environment(knowledge.task).goal(knowledge.shown.get("parameters", torch.zeros(0)))
    pairs = (("before adaptation", before, early), ("after", after, late))
    panels = [
        _summed(title, rewards) if goal is None else _plane(title, states, goal) for title, states, rewards in pairs
    ]
    gained = float(late.sum(1).mean()), float(early.sum(1).mean())
    caption = (
        f"Trajectories of one validation task{_task(knowledge)}: the return is {gained[1]:.4g} on average before "
        f"adaptation and {gained[0]:.4g} after it. The first {min(DRAWN, len(before))} of {len(before)} are drawn"
        f"{', as the sum of their rewards.' if goal is None else '.'}"
    )
    return LearnedFacts("trajectories", caption, tuple(panels), beside=True)


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


def _plane(title: str, states: Tensor, goal: Tensor) -> Lines:
    paths = [
        Line(f"trajectory {number}", numbers(one[:, 0]), numbers(one[:, 1]), "thin")
        for number, one in enumerate(states[:DRAWN], 1)
    ]
    (x, y), start = goal.tolist(), states[0, 0].tolist()
    marks = (NamedPoint("start", start[0], start[1]), NamedPoint("goal", x, y, "*"))
    return Lines(title, "x", "y", tuple(paths), marks=marks, plane=True)


def _summed(title: str, rewards: Tensor) -> Lines:
    steps = tuple(map(float, range(1, rewards.shape[1] + 1)))
    sums = [
        Line(f"trajectory {number}", steps, numbers(one), "thin")
        for number, one in enumerate(rewards[:DRAWN].cumsum(1), 1)
    ]
    return Lines(title, "step", "sum of rewards so far", tuple(sums), whole=True)


def _task(knowledge: TrialKnowledge) -> str:
    values = knowledge.shown.get("parameters")
    if values is None:
        return ""
    named = zip(knowledge.task.parameters, values.tolist(), strict=True)
    told = [f"{name} {value:.3g}" for name, value in named if name != "seed"]
    return f" ({', '.join(told)})"
