"""A learned loss, by what is predicted; and the shares of a learned mixture."""

import torch
from torch import Tensor

from metaloom.dashboards.canvas import canvas, name_axes
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Known, Picture
from metaloom.dashboards.knowledge_figures.weights import floats
from metaloom.learners.knowledge.learned_loss import ML3
from metaloom.learners.knowledge.loss_mixture import Mixture, RegressionMixture

LEAST = 0.01  # the least probability of the right class that is drawn
FARTHEST = 3.0  # the largest error that is drawn


def _certainty(ways: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities of the right class, and the logits [n, ways] and labels [n] that have them."""
    p = torch.linspace(LEAST, 1 - LEAST, 99)
    rest = ((1 - p) / (ways - 1)).log()[:, None].expand(-1, ways - 1)
    return p, torch.cat([p.log()[:, None], rest], 1), torch.zeros(len(p), dtype=torch.int64)


@DRAWERS.register("loss.curve")
def loss_curve(known: Known) -> Picture | None:
    """Draw the learned loss of one example, and the task's own beside it."""
    for loss, phi in known.members("loss"):
        if not isinstance(loss, ML3 | Mixture | RegressionMixture) or not phi:
            continue
        if known.task.task_kind.has_classes:
            x, outputs, targets = _certainty(known.task.outputs)
            hand, name = -x.log(), "probability of the right class"
        else:
            x = torch.linspace(-FARTHEST, FARTHEST, 121)
            outputs = x[:, None].expand(-1, known.task.outputs)
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
