"""How an external memory is read, step by step."""

import torch

from metaloom.dashboards.knowledge_facts.base import FACTS, TrialKnowledge
from metaloom.dashboards.knowledge_facts.panels import Heat, LearnedFacts


@FACTS.register("prediction.reads")
@torch.no_grad()
def reads(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return the weight with which each slot is read at each step."""
    weights = knowledge.matrix("reads")
    if weights is None:
        return None
    shares = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
    slots = float((1 / shares.square().sum(1).clamp_min(1e-12)).clamp_max(weights.shape[1]).mean())
    used = len(set(weights.argmax(1).tolist()))
    caption = (
        f"How the {weights.shape[1]} slots of the memory are read over the {len(weights)} steps of a validation "
        f"episode: a read is spread over {slots:.1f} slots on average (the inverse sum of its squared shares), and "
        f"{used} different slots are the most read at some step."
    )
    return LearnedFacts("memory-reads", caption, (Heat("", "step", "slot of the memory", weights.T, "weight"),))
