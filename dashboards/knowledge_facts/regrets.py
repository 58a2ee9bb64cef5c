"""The regret of simulated searches by their trials, with learned settings and at random."""

import torch

from metaloom.dashboards.knowledge_facts.base import FACTS, TrialKnowledge
from metaloom.dashboards.knowledge_facts.panels import LearnedFacts, Line, Lines, numbers


@FACTS.register("prediction.regrets")
@torch.no_grad()
def regrets(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return the regret after each trial: of each search, and their mean."""
    ours, random = knowledge.matrix("regrets"), knowledge.matrix("regrets_of_random")
    if ours is None or random is None:
        return None
    curves: list[Line] = []
    for values, name in ((ours, "these settings"), (random, "at random")):
        trials = tuple(map(float, range(1, values.shape[1] + 1)))
        each = [Line(f"{name}, search {one}", trials, numbers(row), "thin", name) for one, row in enumerate(values, 1)]
        curves += [*each, Line(f"{name}, mean", trials, numbers(values.mean(0)), "step", name)]
    panel = Lines("", "trial", "regret (1: the median configuration)", tuple(curves), whole=True)
    caption = (
        f"The regret of {len(ours)} searches on the first validation table, which falls from {_at(ours, 0)} after one "
        f"trial to {_at(ours, -1)} after {ours.shape[1]}; at random it is {_at(random, -1)} then."
    )
    return LearnedFacts("regrets", caption, (panel,))


def _at(curves: torch.Tensor, trial: int) -> str:
    return f"{float(curves[:, trial].mean()):.4f}"
