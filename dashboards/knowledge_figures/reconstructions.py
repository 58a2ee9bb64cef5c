"""Examples of an episode as they are, as an autoencoder sees them, and as it reconstructs them."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from metaloom.dashboards.canvas import canvas
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Picture, TrialKnowledge
from metaloom.dashboards.knowledge_figures.distilled import TILE, as_pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = ("original", "corrupted", "reconstruction")
SHOWN = 8
LEAST_SIDE = 4  # of a square number of values that is drawn as an image


@DRAWERS.register("prediction.reconstructions")
@torch.no_grad()
def reconstructions(knowledge: TrialKnowledge) -> Picture | None:
    """Draw the queries that are shown in columns, one row for each of the three."""
    found = {name: one for name in NAMES if (one := knowledge.shown.get(name)) is not None}
    shapes = {tuple(one.shape) for one in found.values()}
    finite = all(bool(one.isfinite().all()) and one.ndim > 1 and one.numel() for one in found.values())
    if not {"original", "reconstruction"} <= set(found) or len(shapes) > 1 or not finite:
        return None
    shown = {name: one[:SHOWN].double() for name, one in found.items()}
    count = len(shown["original"])
    figure = canvas(TILE * count + 1.0, TILE * len(shown) + 0.3)
    low, high = float(shown["original"].min()), float(shown["original"].max())
    for row, (name, examples) in enumerate(shown.items()):
        for column in range(count):
            axes = figure.add_subplot(len(shown), count, row * count + column + 1)
            _draw(axes, examples[column : column + 1], low, high)
            if column == 0:
                axes.set_ylabel(name, fontsize=7)
    return Picture("reconstructions", _words(shown), figure)


def _draw(axes: "Axes", example: Tensor, low: float, high: float) -> None:
    """Draw an example [1, *inputs] on the scale of the originals: an image, or lines, one for each channel."""
    axes.set_xticks([])
    axes.set_yticks([])
    if is_image(example):
        axes.imshow(((as_pictures(example)[0] - low) / max(high - low, 1e-12)).clamp(0, 1), cmap="gray", vmin=0, vmax=1)
        return
    for line in example[0].reshape(-1, example.shape[-1]):
        axes.plot(line, linewidth=0.8)
    margin = 0.1 * (high - low) + 1e-12
    axes.set_ylim(low - margin, high + margin)


def is_image(examples: Tensor) -> bool:
    """Whether examples [n, *inputs] are drawn as images: those, and rows of a square number of values."""
    values = math.prod(examples.shape[1:])
    side = math.isqrt(values)
    return examples.ndim == 4 or (examples.ndim == 2 and side * side == values and side >= LEAST_SIDE)


def _words(shown: dict[str, Tensor]) -> str:
    original = shown["original"]
    errors = {name: float((one - original).square().mean()) for name, one in shown.items() if name != "original"}
    spread = float((original - original.mean(0)).square().mean())
    seen = errors.get("corrupted")
    between = "" if seen is None else f", what the network sees of them (mean squared error {seen:.3g})"
    return (
        f"{len(original)} queries of a validation episode as they are{between}, and reconstructed (mean squared error "
        f"{errors['reconstruction']:.3g}; their mean in place of each of them has {spread:.3g})."
    )
