"""The examples of a distilled training set, as pictures."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from metaloom.dashboards.canvas import canvas
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Picture, TrialKnowledge
from metaloom.learners.knowledge.distilled_data import DistilledData

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 10  # examples shown of a class; the caption counts the rest
TILE = 0.9  # inches


@DRAWERS.register("data.distilled")
def distilled(knowledge: TrialKnowledge) -> Picture | None:
    """Draw the learned examples, one column per class."""
    for data, phi in knowledge.members("data"):
        if isinstance(data, DistilledData):
            per_class = data.config.per_class
            labels = torch.softmax(phi["labels"], -1) if "labels" in phi else None
            figure = examples_figure(phi["examples"], per_class)
            return Picture("distilled-data", _words(phi["examples"], per_class, labels), figure)
    return None


def as_pictures(examples: Tensor) -> Tensor:
    """Return examples [n, *features] as pictures [n, height, width] or, in colour, [n, height, width, 3].

    Examples that are neither images nor a square number of values become strips of height 1.
    """
    count, inputs = len(examples), examples.shape[1:]
    if len(inputs) == 3 and inputs[0] in (1, 3):
        pictures = examples.movedim(1, -1)
        return pictures[..., 0] if inputs[0] == 1 else pictures
    if len(inputs) == 3:
        return examples.mean(1)
    width = math.prod(inputs)
    side = math.isqrt(width)
    return examples.reshape(count, side, side) if side * side == width else examples.reshape(count, 1, width)


def examples_figure(examples: Tensor, per_class: int) -> "Figure":
    """Draw examples [classes * per_class, *features] on one scale, one column per class."""
    pictures = as_pictures(examples.detach().double())
    # The scale spans the middle 98% of all values; outliers would turn the rest into one grey.
    low, high = torch.quantile(pictures.flatten()[:1_000_000], torch.tensor([0.01, 0.99], dtype=torch.float64)).tolist()
    scaled = ((pictures - low) / max(high - low, 1e-12)).clamp(0, 1)
    classes, rows = len(examples) // per_class, min(per_class, ROWS)
    figure = canvas(TILE * classes, TILE * rows + 0.4)
    for row in range(rows):
        for label in range(classes):
            axes = figure.add_subplot(rows, classes, row * classes + label + 1)
            picture = scaled[label * per_class + row]
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1, aspect="auto" if len(picture) == 1 else "equal")
            axes.set_axis_off()
            if row == 0:
                axes.set_title(str(label), fontsize=9)
    return figure


def _words(examples: Tensor, per_class: int, labels: Tensor | None) -> str:
    shown = "" if per_class <= ROWS else f" (the first {ROWS} of each are shown)"
    caption = f"{len(examples)} learned examples, {per_class} of each class{shown}, in place of the training set."
    if labels is not None:
        own = labels[torch.arange(len(labels)), torch.arange(len(labels)) // per_class]
        caption += f" Their learned labels give their own class {float(own.mean()):.2f} on average."
    return caption
