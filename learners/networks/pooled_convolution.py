r"""Convolve grey images with 3x3 kernels and max-pool 2x2, in one pass that never holds the convolution's output.

That output, 64 maps of full size, is the largest tensor of a few-shot network, and its arithmetic the smallest: apart,
the two layers and their derivatives spend their time on moving it through memory. Here four neighbouring outputs are
made in registers and the largest is kept, with its place:

    y[c, i, j] = max_q (w_c . patch at (2i, 2j) + q),   q in {(0,0), (0,1), (1,0), (1,1)}

Where the places are fixed, y is linear in w: ``Selected`` is that map, ``Gathered`` its adjoint, and each is the
other's derivative, so that everything is exact to any order, with the convention of torch's max-pooling (of equal
values the first; NaN is the largest).

The loops are compiled by numba when they are first needed, a second for each precision, and kept beside this file or
in numba's own cache folder. Where numba is not installed (it is not needed to serve a bundle), torch's two layers do
the same at their own cost; the results then differ in the last bits.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Loop = Callable[..., None]
PRECISIONS = (torch.float32, torch.float64)


def pooled_convolution(images: Tensor, kernel: Tensor) -> Tensor:
    """Return ``max_pool2d(conv2d(images, kernel, padding=1), 2)``, differentiable in the kernel to any order.

    Args:
        images: Constants [n, 1, height, width] on the CPU, float32 or float64.
        kernel: [outputs, 1, 3, 3].

    Returns:
        [n, outputs, height // 2, width // 2].
    """
    if not _has_numba():
        return F.max_pool2d(F.conv2d(images, kernel, padding=1), 2)
    return PooledConvolution.apply(F.pad(images, (1,) * 4), kernel)  # type: ignore[no-untyped-call, no-any-return]


class PooledConvolution(torch.autograd.Function):
    """Padded images [n, 1, height + 2, width + 2] and kernels to the largest of every four outputs."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, kernel: Tensor) -> Tensor:
        """Return [n, outputs, height // 2, width // 2]."""
        values = _blank(padded, len(kernel))
        places = torch.empty_like(values)
        _loops().choose(*_arrays(padded[:, 0], _taps(kernel), values, places))
        ctx.save_for_backward(padded, places)
        ctx.save_for_forward(padded, places)
        return values.permute(0, 3, 1, 2)

    @staticmethod
    def jvp(ctx: Any, _: None, tangent: Tensor) -> Tensor:
        """Return how the chosen outputs move with the kernels."""
        return Selected.apply(*ctx.saved_tensors, tangent)  # type: ignore[no-untyped-call, no-any-return]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[None, Tensor]:
        """Pull a slope back to the kernels."""
        return None, Gathered.apply(*ctx.saved_tensors, slope)  # type: ignore[no-untyped-call]


class Selected(torch.autograd.Function):
    """Kernels to the convolution's outputs at given places."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, places: Tensor, kernel: Tensor) -> Tensor:
        """Return [n, outputs, height // 2, width // 2]."""
        values = _blank(padded, len(kernel))
        _loops().select(*_arrays(padded[:, 0], places, _taps(kernel), values))
        ctx.save_for_backward(padded, places)
        ctx.save_for_forward(padded, places)
        return values.permute(0, 3, 1, 2)

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, tangent: Tensor) -> Tensor:
        """It is linear."""
        return Selected.apply(*ctx.saved_tensors, tangent)  # type: ignore[no-untyped-call, no-any-return]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[None, None, Tensor]:
        """Its adjoint."""
        return None, None, Gathered.apply(*ctx.saved_tensors, slope)  # type: ignore[no-untyped-call]


class Gathered(torch.autograd.Function):
    """Slopes of the outputs at given places to the slope of the kernels."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, places: Tensor, slope: Tensor) -> Tensor:
        """Return [outputs, 1, 3, 3]; sums are of one image in its own precision, over images by torch's."""
        sums = padded.new_zeros(len(padded), 9, slope.shape[1])
        _loops().gather(*_arrays(padded[:, 0], places, slope.permute(0, 2, 3, 1).contiguous(), sums))
        ctx.save_for_backward(padded, places)
        ctx.save_for_forward(padded, places)
        return sums.sum(0).t().reshape(-1, 1, 3, 3)

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, tangent: Tensor) -> Tensor:
        """It is linear."""
        return Gathered.apply(*ctx.saved_tensors, tangent)  # type: ignore[no-untyped-call, no-any-return]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[None, None, Tensor]:
        """Its adjoint."""
        return None, None, Selected.apply(*ctx.saved_tensors, slope)  # type: ignore[no-untyped-call]


def _blank(padded: Tensor, outputs: int) -> Tensor:
    n, _, height, width = padded.shape
    return padded.new_empty(n, (height - 2) // 2, (width - 2) // 2, outputs)


def _taps(kernel: Tensor) -> Tensor:
    """Lay the kernels [outputs, 1, 3, 3] out as [9, outputs], so that a loop over outputs reads neighbours."""
    return kernel.reshape(-1, 9).t().contiguous()


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().numpy() for tensor in tensors]


class Loops(NamedTuple):
    """The three loops, compiled. x is [n, height + 2, width + 2]; places, values, slope [n, rows, columns, outputs]."""

    choose: Loop
    select: Loop
    gather: Loop


@cache
def _has_numba() -> bool:
    return find_spec("numba") is not None


@cache
def _loops() -> Loops:
    import numba  # here: it takes as long as a small command

    def compiled(*, kept: bool) -> Loops:
        # products and sums may be fused and nothing else changed: no order of sums, and NaN stays NaN
        made: list[Loop] = [
            numba.njit(loop, cache=kept, nogil=True, error_model="numpy", fastmath={"contract"})
            for loop in (_choose, _select, _gather)
        ]
        return Loops(*made)

    try:
        return compiled(kept=True)
    except RuntimeError:  # no folder that can be written to: every process compiles its own
        return compiled(kept=False)


# In the loops below the places are numbers as wide as the values, and the innermost loop goes over outputs that lie
# side by side: only then does the compiler work on eight or sixteen of them at once.


def _choose(x: Any, taps: Any, values: Any, places: Any) -> None:
    """Write the largest of every four outputs, and its place: 0, 1, 2, 3 by rows."""
    images, rows, columns, outputs = values.shape
    number = x.dtype.type
    for image in range(images):
        for row in range(0, 2 * rows, 2):
            for column in range(0, 2 * columns, 2):
                for output in range(outputs):
                    tap = taps[0, output]
                    upper_left = x[image, row, column] * tap
                    upper_right = x[image, row, column + 1] * tap
                    lower_left = x[image, row + 1, column] * tap
                    lower_right = x[image, row + 1, column + 1] * tap
                    for index in range(1, 9):
                        y, z, tap = row + index // 3, column + index % 3, taps[index, output]
                        upper_left += x[image, y, z] * tap
                        upper_right += x[image, y, z + 1] * tap
                        lower_left += x[image, y + 1, z] * tap
                        lower_right += x[image, y + 1, z + 1] * tap
                    largest, place = upper_left, number(0)
                    if upper_right > largest or upper_right != upper_right:
                        largest, place = upper_right, number(1)
                    if lower_left > largest or lower_left != lower_left:
                        largest, place = lower_left, number(2)
                    if lower_right > largest or lower_right != lower_right:
                        largest, place = lower_right, number(3)
                    values[image, row // 2, column // 2, output] = largest
                    places[image, row // 2, column // 2, output] = place


def _select(x: Any, places: Any, taps: Any, values: Any) -> None:
    """Write the outputs at the places."""
    images, rows, columns, outputs = values.shape
    one, two, three = x.dtype.type(1), x.dtype.type(2), x.dtype.type(3)
    for image in range(images):
        for row in range(rows):
            for column in range(columns):
                for output in range(outputs):
                    place = places[image, row, column, output]
                    total = x.dtype.type(0)
                    for index in range(9):
                        y, z = 2 * row + index // 3, 2 * column + index % 3
                        right, below, across = x[image, y, z + 1], x[image, y + 1, z], x[image, y + 1, z + 1]
                        pixel = x[image, y, z]
                        if place == one:
                            pixel = right
                        if place == two:
                            pixel = below
                        if place == three:
                            pixel = across
                        total += pixel * taps[index, output]
                    values[image, row, column, output] = total


def _gather(x: Any, places: Any, slope: Any, sums: Any) -> None:
    """Add to ``sums`` [n, 9, outputs] every slope times the patch at its place."""
    images, rows, columns, outputs = slope.shape
    one, two, three = x.dtype.type(1), x.dtype.type(2), x.dtype.type(3)
    for image in range(images):
        for row in range(rows):
            for column in range(columns):
                for index in range(9):
                    y, z = 2 * row + index // 3, 2 * column + index % 3
                    here, right = x[image, y, z], x[image, y, z + 1]
                    below, across = x[image, y + 1, z], x[image, y + 1, z + 1]
                    for output in range(outputs):
                        place = places[image, row, column, output]
                        pixel = here
                        if place == one:
                            pixel = right
                        if place == two:
                            pixel = below
                        if place == three:
                            pixel = across
                        sums[image, index, output] += pixel * slope[image, row, column, output]
