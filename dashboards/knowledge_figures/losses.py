"""A learned loss against the prediction, and the shares of a learned mixture."""

import torch
from torch import Tensor

from metaloom.dashboards.canvas import canvas, name_axes
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Picture, TrialKnowledge
from metaloom.dashboards.knowledge_figures.weights import floats
from metaloom.learners.knowledge.learned_loss import ML3
from metaloom.learners.knowledge.loss_mixture import Mixture, RegressionMixture

SMALLEST_PROBABILITY = 0.01  # of the right class
LARGEST_ERROR = 3.0


def _probabilities(ways: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities [n] of the right class, and logits [n, ways] and labels [n] with these probabilities."""
    p = torch.linspace(SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY, 99)
    rest = ((1 - p) / (ways - 1)).log()[:, None].expand(-1, ways - 1)
    return p, torch.cat([p.log()[:, None], rest], 1), torch.zeros(len(p), dtype=torch.int64)


@DRAWERS.register("loss.curve")
def loss_curve(knowledge: TrialKnowledge) -> Picture | None:
    """Draw the learned loss of one example beside the task's own loss."""
    for loss, phi in knowledge.members("loss"):
        if not isinstance(loss, ML3 | Mixture | RegressionMixture) or not phi:
            continue
        if knowledge.task.task_kind.has_classes:
            x, outputs, targets = _probabilities(knowledge.task.outputs)
            hand, name = -x.log(), "probability of the right class"
        else:
            x = torch.linspace(-LARGEST_ERROR, LARGEST_ERROR, 121)
            outputs = x[:, None].expand(-1, knowledge.task.outputs)
            targets = torch.zeros_like(outputs)
            hand, name = x.square(), "prediction, where the target is 0"
        with torch.no_grad():
            values = loss.losses(floats(phi), outputs, targets)
        figure = canvas(5.0, 3.5)
        axes = figure.add_subplot()
        axes.plot(x, values - values.min(), label="learned")
        axes.plot(x, hand - hand.min(), linestyle="--", label="the task's own")
        name_axes(axes, "", name, "loss above its least")
        axes.legend(fontsize=8)
        least = round(float(x[values.argmin()]), 2) + 0.0  # never -0.00
        caption = (
            f"The learned loss is least at {least:.2f} ({name}) and rises by {float(values.max() - values.min()):.3g}."
        )
        return Picture("learned-loss", caption, figure)
    return None
