"""Crops of images at fixed places, so that what is adapted is the same every time.

Bendou et al., 2022, https://arxiv.org/abs/2201.09699, draw random crops of the shots and average their features. Here
nothing is random: the areas, shapes and places of the crops follow Halton's sequence, which fills its cube evenly.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SHAPES = (3 / 4, 4 / 3)  # width to height of a crop, as random resized crops commonly have
BASES = (2, 3, 5, 7)  # of Halton's sequence: a crop's area, its shape, and its place in both directions


def halton(index: int, base: int) -> float:
    """Return the digits of ``index`` (from 1) in a base, mirrored at the point: a number in (0, 1)."""
    found, weight = 0.0, 1.0
    while index:
        weight /= base
        index, digit = divmod(index, base)
        found += weight * digit
    return found


def boxes(count: int, least_area: float) -> list[tuple[float, float, float, float]]:
    """Return the left, top, width and height of crops, as fractions of an image; an area is ``least_area`` to 1."""
    found = []
    for index in range(1, count + 1):
        area, shape, across, down = (halton(index, base) for base in BASES)
        size, ratio = least_area + (1 - least_area) * area, SHAPES[0] ** (1 - shape) * SHAPES[1] ** shape
        width, height = min(1.0, math.sqrt(size * ratio)), min(1.0, math.sqrt(size / ratio))
        found.append((across * (1 - width), down * (1 - height), width, height))
    return found


def crops(images: Tensor, count: int, least_area: float) -> Tensor:
    """Return crops of images [n, channels, height, width], resized to the whole: [count, n, channels, height, width].

    Pixels are interpolated between the four around them.
    """
    each = []
    for left, top, width, height in boxes(count, least_area):
        # torch's grid runs from -1 to 1 over an image
        moved = [[width, 0.0, 2 * left + width - 1], [0.0, height, 2 * top + height - 1]]
        theta = torch.tensor([moved], dtype=images.dtype, device=images.device).expand(len(images), 2, 3)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        each.append(F.grid_sample(images, grid, padding_mode="border", align_corners=False))
    return torch.stack(each)
