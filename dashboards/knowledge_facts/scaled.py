"""Examples as pictures in [0, 1]."""

import math

import torch
from torch import Tensor

LEAST_SIDE = 4  # of a square number of values that is drawn as an image


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


def is_image(examples: Tensor) -> bool:
    """Whether examples [n, *inputs] are drawn as images: those, and rows of a square number of values."""
    values = math.prod(examples.shape[1:])
    side = math.isqrt(values)
    return examples.ndim == 4 or (examples.ndim == 2 and side * side == values and side >= LEAST_SIDE)


def between(values: Tensor, low: float, high: float) -> Tensor:
    """Return values with ``low`` at 0 and ``high`` at 1, cut off outside."""
    return ((values - low) / max(high - low, 1e-12)).clamp(0, 1)


def on_one_scale(pictures: Tensor) -> Tensor:
    """Return pictures scaled by the middle 98% of all their values; outliers would turn the rest into one grey."""
    ends = torch.tensor([0.01, 0.99], dtype=torch.float64)
    low, high = torch.quantile(pictures.double().flatten()[:1_000_000], ends).tolist()
    return between(pictures.double(), low, high)
