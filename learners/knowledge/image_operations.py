r"""Image operations with a magnitude, as pure functions of batches: the vocabulary of augmentation policies.

The fifteen of AutoAugment (Cubuk et al., 2019, https://arxiv.org/abs/1805.09501, table 6), with SamplePairing
(Inoue, 2018, https://arxiv.org/abs/1801.02929), a mirror and Random Erasing (Zhong et al., 2020,
https://arxiv.org/abs/1708.04896).

Images are [n, channels, height, width] in [0, 1], magnitudes [n] in [0, 1] with 0 for no change. An operation is
differentiable in the image and in its magnitude if it has one: exactly, or ``straight_through``, where the function is
a step (solarize, posterize) or sorts pixels (equalize): forward it is exact, backward a smooth approximation, so that
its derivative disagrees with central differences by definition.

All randomness comes as numbers (``Chance``), so that an operation may be computed again, batched and traced.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.registry import Registry

UNMOVED = (1.0, 0.0, 0.0, 1.0)  # the matrix of no change
LEVELS = 255.0  # of an 8-bit image, which posterize and equalize count in
SHEAR, SHIFT, DEGREES = 0.3, 0.45, 30.0  # at magnitude 1; AutoAugment's ranges (150 of 331 pixels are 0.45)
ENHANCE = 0.9  # factors run from 0.1 to 1.9
POSTERIZE_BITS = 4.0  # taken away at magnitude 1: 4 of 8 remain
PAIRING, CUT = 0.4, 0.5  # the partner's share, and the square's side as a share of the image's, at magnitude 1
SOFTNESS = 0.1  # width of the sigmoid that replaces solarize's threshold when differentiating
GREY = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL converts to grey


class Chance(NamedTuple):
    """What chance decides about one operation on each image."""

    sign: Tensor  # [n], -1 or 1, the direction
    place: Tensor  # [n, 2] in [0, 1), a point
    partner: Tensor  # [n] int64, another image


Function = Callable[[Tensor, Tensor, Chance], Tensor]


@dataclass(frozen=True)
class Operation:
    """One image operation.

    Attributes:
        function: (x [n, channels, height, width], magnitudes [n], chance) to the changed images.
        derivative: ``exact`` or ``straight_through``.
        amount: What a magnitude means, for people: a format of magnitude times ``scale``; empty if it has none.
        scale: The amount at a magnitude of 1.
    """

    function: Function
    derivative: Literal["exact", "straight_through"] = "exact"
    amount: str = ""
    scale: float = 0.0

    def describe(self, magnitude: float) -> str:
        """Say what a magnitude means, such as ``up to +-9 degrees``."""
        return self.amount.format(self.scale * magnitude)


OPERATIONS: Registry[Operation] = Registry("image operation")


def operation(name: str, **facts: Any) -> Callable[[Function], Function]:
    """Register a function as the operation ``name``, with these attributes of ``Operation``."""

    def register(function: Function) -> Function:
        OPERATIONS.add(name, Operation(function, **facts))
        return function

    return register


def bilinear(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Read images x [n, channels, height, width] at real positions, zero outside; differentiable to any order.

    ``rows`` and ``columns`` [n, height, width] count pixels from the middle of the first. These are plain gathers:
    torch's ``grid_sample`` has no double backward and no forward mode.
    """
    n, channels, height, width = x.shape
    flat = x.reshape(n, channels, height * width)
    top, left = rows.detach().floor(), columns.detach().floor()
    total = torch.zeros_like(x)
    for row_step in (0, 1):
        for column_step in (0, 1):
            row, column = top + row_step, left + column_step
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = (1 - (rows - row).abs()) * (1 - (columns - column).abs()) * inside
            index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            index = index.reshape(n, 1, height * width).expand(n, channels, height * width)
            total = total + flat.gather(2, index).reshape(x.shape) * weight.unsqueeze(1)
    return total


def affine(x: Tensor, matrix: Sequence[Tensor | float], shift: Sequence[Tensor | float] = (0.0, 0.0)) -> Tensor:
    """Read each image [n, channels, height, width] at positions moved by a linear map about its middle, and a shift.

    ``matrix`` is (row by row, row by column, column by row, column by column), ``shift`` the pixels added to (row,
    column), each [n] or one number.
    """
    n, _, height, width = x.shape
    rows = torch.arange(height, dtype=x.dtype, device=x.device).reshape(1, -1, 1) - (height - 1) / 2
    columns = torch.arange(width, dtype=x.dtype, device=x.device).reshape(1, 1, -1) - (width - 1) / 2
    tensors = (one if isinstance(one, Tensor) else x.new_full((n,), one) for one in (*matrix, *shift))
    rr, rc, cr, cc, down, right = (one.reshape(-1, 1, 1) for one in tensors)
    read_rows = rr * rows + rc * columns + down + (height - 1) / 2
    read_columns = cr * rows + cc * columns + right + (width - 1) / 2
    return bilinear(x, read_rows, read_columns)


def _per_image(value: Tensor) -> Tensor:
    return value.reshape(-1, 1, 1, 1)


def _grey(x: Tensor) -> Tensor:
    """Return the grey image [n, 1, height, width]; other than three channels are averaged."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return (x * x.new_tensor(GREY).reshape(1, 3, 1, 1)).sum(1, keepdim=True)


def _enhanced(x: Tensor, plain: Tensor, magnitude: Tensor, chance: Chance) -> Tensor:
    """Move from a plainer image towards x and beyond: factor 1 + 0.9 m with the sign of chance."""
    factor = _per_image(1 + ENHANCE * magnitude * chance.sign)
    return (plain + factor * (x - plain)).clamp(0, 1)


def _straight_through(exact: Tensor, smooth: Tensor) -> Tensor:
    return exact.detach() + smooth - smooth.detach()


@operation("shear_x", amount="sheared by up to +-{:.2f}", scale=SHEAR)
def shear_x(x: Tensor, magnitude: Tensor, chance: Chance) -> Tensor:
    return affine(x, (1.0, 0.0, SHEAR * magnitude * chance.sign, 1.0))


@operation("shear_y", amount="sheared by up to +-{:.2f}", scale=SHEAR)
def shear_y(x: Tensor, magnitude: Tensor, chance: Chance) -> Tensor:
    return affine(x, (1.0, SHEAR * magnitude * chance.sign, 0.0, 1.0))


@operation("translate_x", amount="shifted by +-{:.0%} of the width", scale=SHIFT)
def translate_x(x: Tensor, magnitude: Tensor, chance: Chance) -> Tensor:
    return affine(x, UNMOVED, (0.0, SHIFT * x.shape[-1] * magnitude * chance.sign))


@operation("translate_y", amount="shifted by +-{:.0%} of the height", scale=SHIFT)
def translate_y(x: Tensor, magnitude: Tensor, chance: Chance) -> Tensor:
    return affine(x, UNMOVED, (SHIFT * x.shape[-2] * magnitude * chance.sign, 0.0))


@operation("rotate", amount="turned by +-{:.0f} degrees", scale=DEGREES)
def rotate(x: Tensor, magnitude: Tensor, chance: Chance) -> Tensor:
    angle = math.radians(DEGREES) * magnitude * chance.sign
    cosine, sine = angle.cos(), angle.sin()
    return affine(x, (cosine, sine, -sine, cosine))


@operation("auto_contrast")
def auto_contrast(x: Tensor, magnitude: Tensor, chance: Chance) -> Tensor:
    """Stretch each channel to [0, 1]; a channel of a single value stays."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    flat = high <= low
    return torch.where(flat, x, (x - low) / torch.where(flat, torch.ones_like(low), high - low))


@operation("invert")
def invert(x: Tensor, magnitude: Tensor, chance: Chance) -> Tensor:
    return 1 - x


@operation("equalize", derivative="straight_through")
def equalize(x: Tensor, magnitude: Tensor, chance: Chance) -> Tensor:
    """Spread each channel's 256 levels evenly, as PIL does; backward the identity."""
    bins = int(LEVELS) + 1
    level = (x.detach().clamp(0, 1) * LEVELS).round().long().flatten(2)  # [n, channels, pixels]
    counts = torch.zeros((*level.shape[:2], bins), dtype=torch.int64, device=x.device)
    counts = counts.scatter_add(2, level, torch.ones_like(level))
    highest = level.amax(2, keepdim=True)
    step = (level.shape[2] - counts.gather(2, highest)) // int(LEVELS)  # of the pixels below the brightest level
    safe = step.clamp_min(1)
    table = ((safe // 2 + counts.cumsum(2) - counts) // safe).clamp(0, int(LEVELS))
    spread = table.gather(2, level).reshape(x.shape).to(x.dtype) / LEVELS
    few = (step == 0).unsqueeze(-1)  # fewer pixels than levels: PIL leaves the channel alone
    return _straight_through(torch.where(few, x, spread), x)


@operation("solarize", amount="pixels above {:.2f} below white inverted", scale=1.0, derivative="straight_through")
def solarize(x: Tensor, magnitude: Tensor, chance: Chance) -> Tensor:
    """Invert pixels of at least 1 - m; backward through a sigmoid of width 0.1 about the threshold."""
    threshold = _per_image(1 - magnitude)
    above = (x >= threshold) & (threshold < 1)
    share = torch.sigmoid((x - threshold) / SOFTNESS)
    return _straight_through(torch.where(above, 1 - x, x), x + share * (1 - 2 * x))


@operation("posterize", amount="{:.1f} of 8 bits dropped", scale=POSTERIZE_BITS, derivative="straight_through")
def posterize(x: Tensor, magnitude: Tensor, chance: Chance) -> Tensor:
    """Keep 8 - 4 m bits, rounded; backward the mean darkening, half a step of the coarser scale."""
    dropped = _per_image(POSTERIZE_BITS * magnitude)
    step = torch.exp2(dropped.detach().round())
    coarse = (((x.detach().clamp(0, 1) * LEVELS).round() / step).floor() * step) / LEVELS
    smooth = x - torch.minimum(x, (torch.exp2(dropped) - 1) / (2 * LEVELS))
    return _straight_through(torch.where(step > 1, coarse, x), smooth)


@operation("contrast", amount="factor 1 +- {:.2f}", scale=ENHANCE)
def contrast(x: Tensor, magnitude: Tensor, chance: Chance) -> Tensor:
    return _enhanced(x, _grey(x).mean((1, 2, 3), keepdim=True), magnitude, chance)


@operation("color", amount="factor 1 +- {:.2f} (no change to grey images)", scale=ENHANCE)
def color(x: Tensor, magnitude: Tensor, chance: Chance) -> Tensor:
    return _enhanced(x, _grey(x), magnitude, chance) if x.shape[1] == 3 else x


@operation("brightness", amount="factor 1 +- {:.2f}", scale=ENHANCE)
def brightness(x: Tensor, magnitude: Tensor, chance: Chance) -> Tensor:
    return _enhanced(x, torch.zeros_like(x), magnitude, chance)


@operation("sharpness", amount="factor 1 +- {:.2f}", scale=ENHANCE)
def sharpness(x: Tensor, magnitude: Tensor, chance: Chance) -> Tensor:
    """Against PIL's smoothing kernel, 5 in the middle of ones; the border stays as it is."""
    n, channels, height, width = x.shape
    if min(height, width) < 3:
        return x
    kernel = x.new_ones(1, 1, 3, 3)
    kernel = (kernel + 4 * F.pad(x.new_ones(1, 1, 1, 1), (1, 1, 1, 1))) / 13
    inner = F.conv2d(x.reshape(n * channels, 1, height, width), kernel).reshape(n, channels, height - 2, width - 2)
    border = torch.ones_like(x[:1, :1])
    border = border - F.pad(border[..., 1:-1, 1:-1], (1, 1, 1, 1))
    return _enhanced(x, F.pad(inner, (1, 1, 1, 1)) + border * x, magnitude, chance)


def covered(x: Tensor, magnitude: Tensor, place: Tensor) -> Tensor:
    """Return how much of each pixel a square about ``place`` covers: [n, 1, height, width] in [0, 1].

    Its side is half the image's at magnitude 1. Pixels at its edge count in part, which makes it differentiable.
    """
    shares = []
    for axis, size in ((0, x.shape[-2]), (1, x.shape[-1])):
        centre, half = place[:, axis : axis + 1] * size, (CUT / 2 * size * magnitude).unsqueeze(1)  # [n, 1]
        start = torch.arange(size, dtype=x.dtype, device=x.device).unsqueeze(0)  # a pixel spans [start, start + 1]
        shares.append((torch.minimum(start + 1, centre + half) - torch.maximum(start, centre - half)).clamp(0, 1))
    return (shares[0].unsqueeze(2) * shares[1].unsqueeze(1)).unsqueeze(1)


@operation("cutout", amount="a square of {:.0%} of the side blackened", scale=CUT)
def cutout(x: Tensor, magnitude: Tensor, chance: Chance) -> Tensor:
    return x * (1 - covered(x, magnitude, chance.place))


@operation("erase", amount="a square of {:.0%} of the side replaced by the image's mean", scale=CUT)
def erase(x: Tensor, magnitude: Tensor, chance: Chance) -> Tensor:
    share = covered(x, magnitude, chance.place)
    return x * (1 - share) + share * x.mean((2, 3), keepdim=True)


@operation("sample_pairing", amount="{:.0%} of another image of the batch mixed in", scale=PAIRING)
def sample_pairing(x: Tensor, magnitude: Tensor, chance: Chance) -> Tensor:
    share = _per_image(PAIRING * magnitude)
    return (1 - share) * x + share * x[chance.partner]


@operation("flip")
def flip(x: Tensor, magnitude: Tensor, chance: Chance) -> Tensor:
    return x.flip(-1)


GEOMETRY = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
TONES = ("auto_contrast", "invert", "equalize", "solarize", "posterize", "contrast", "color", "brightness", "sharpness")
STANDARD = (*GEOMETRY, *TONES, "cutout")
