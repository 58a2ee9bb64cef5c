"""A learned loss against the prediction, and a learned potential that shapes a policy's reward."""

import torch
from torch import Tensor

from metaloom.dashboards.knowledge_facts.base import FACTS, TrialKnowledge
from metaloom.dashboards.knowledge_facts.panels import Heat, LearnedFacts, Line, Lines, NamedPoint, numbers
from metaloom.learners.knowledge.learned_loss import ML3
from metaloom.learners.knowledge.loss import Mixture, RegressionMixture
from metaloom.learners.knowledge.policy_gradient import ShapedPolicyGradient

SMALLEST_PROBABILITY = 0.01  # of the right class
LARGEST_ERROR = 3.0
REACH = 1.5  # the largest distance drawn from the goal, the origin
POINTS = 61
START = 1.0  # the distance at which episodes start


def _probabilities(ways: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities [n] of the right class, and logits [n, ways] and labels [n] with these probabilities."""
    p = torch.linspace(SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY, 99)
    rest = ((1 - p) / (ways - 1)).log()[:, None].expand(-1, ways - 1)
    return p, torch.cat([p.log()[:, None], rest], 1), torch.zeros(len(p), dtype=torch.int64)


@FACTS.register("loss.curve")
@torch.no_grad()
def loss_curve(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return the learned loss of one example and the task's own loss."""
    for loss, phi in knowledge.learned("loss", ML3, Mixture, RegressionMixture):
        if knowledge.task.task_kind.has_classes:
            x, outputs, targets = _probabilities(knowledge.task.outputs)
            own, name = -x.log(), "probability of the right class"
        else:
            x = torch.linspace(-LARGEST_ERROR, LARGEST_ERROR, 121)
            outputs = x[:, None].expand(-1, knowledge.task.outputs)
            targets = torch.zeros_like(outputs)
            own, name = x.square(), "prediction, where the target is 0"
        values = loss.losses(phi, outputs, targets)
        learned = Line("learned", numbers(x), numbers(values - values.min()))
        given = Line("the task's own", numbers(x), numbers(own - own.min()), "dashed")
        least = round(float(x[values.argmin()]), 2) + 0.0  # never -0.00
        rise = float(values.max() - values.min())
        caption = f"The learned loss is least at {least:.2f} ({name}) and rises by {rise:.3g}."
        return LearnedFacts("learned-loss", caption, (Lines("", name, "loss above its least", (learned, given)),))
    return None


@FACTS.register("loss.potential")
@torch.no_grad()
def learned_potential(knowledge: TrialKnowledge) -> LearnedFacts | None:
    """Return the learned potential of a mass at rest over the plane."""
    for loss, phi in knowledge.learned("loss", ShapedPolicyGradient):
        line = torch.linspace(-REACH, REACH, POINTS)
        places = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)  # [y, x, 2]
        angles = torch.linspace(0, 2 * torch.pi, POINTS)
        around = START * torch.stack([angles.cos(), angles.sin()], -1)
        values, goal, start = (
            loss.potential(phi, torch.cat([place, torch.zeros_like(place)], -1))
            for place in (places, torch.zeros(1, 2), around)
        )
        at, goals = numbers(line), (NamedPoint("goal", 0.0, 0.0, "x"),)
        panel = Heat("", "place", "place", values, "potential", xs=at, ys=at, marks=goals)
        caption = (
            f"The learned potential of a mass at rest is {float(goal):.3g} at the goal and on average "
            f"{float(start.mean()):.3g} at distance {START:g}: coming closer is "
            f"{'rewarded' if float(goal) > float(start.mean()) else 'punished'} on the way."
        )
        return LearnedFacts("potential", caption, (panel,))
    return None
