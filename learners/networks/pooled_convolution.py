r"""Convolve grey images with 3x3 kernels and max-pool 2x2, in one pass that never holds the convolution's output.

That output, 64 maps of full size, is the largest tensor of a few-shot network, and its arithmetic the smallest: as two
layers, convolution and pooling spend their time on moving it through memory. Here four neighbouring outputs are made in
registers and the largest is kept, with its place:

    y[c, i, j] = max_q (w_c . patch at (2i, 2j) + q),   q in {(0,0), (0,1), (1,0), (1,1)}

For fixed places y is linear in w (``Placed``), so that all derivatives are exact to any order, with the convention of
torch's max-pooling (of equal values the first; NaN is the largest).

numba compiles the loops when they are first needed, in a second for each precision, and caches them beside this file or
in its own cache folder. Where numba is not installed (serving a bundle does not need it), torch's two layers are used;
the results then differ in the last bits.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

LARGEST_PATCH = 12  # values in a patch up to which its covariance is cheaper than a pass over the output
FEW_THREADS = 4  # up to which one thread of ``pooled_convolution`` beats torch's convolution and pooling
Loop = Callable[..., None]
PRECISIONS = (torch.float32, torch.float64)


class Convolution(NamedTuple):
    """Images [n, inputs, height, width] and a kernel [outputs, inputs, size, size], not yet convolved.

    The first convolution of grey images has the largest output of a few-shot network, and the smallest patches. It is
    linear in its patches, so its mean and variance follow from theirs (``statistics``), and its largest outputs can be
    found while they are computed (``pooled``).
    """

    images: Tensor
    kernel: Tensor
    stride: int = 1
    padding: int = 1

    def outputs(self) -> Tensor:
        """Return [n, outputs, height, width]."""
        return F.conv2d(self.images, self.kernel, stride=self.stride, padding=self.padding)

    def pooled(self) -> Tensor:
        """Return the largest of every 2x2 outputs: [n, outputs, height // 2, width // 2]."""
        if self._is_grey and torch.get_num_threads() <= FEW_THREADS:
            return pooled_convolution(self.images, self.kernel)
        return F.max_pool2d(self.outputs(), 2)

    @property
    def _is_grey(self) -> bool:
        """Whether ``pooled_convolution`` can compute it."""
        shape, form = tuple(self.kernel.shape[1:]), (self.stride, self.padding)
        precise = self.images.dtype == self.kernel.dtype and self.kernel.dtype in PRECISIONS
        return self.has_small_patches and shape == (1, 3, 3) and form == (1, 1) and precise

    @property
    def has_small_patches(self) -> bool:
        """Whether ``statistics`` is cheaper: constant images, few values in a patch, and a CPU."""
        moves = self.images.requires_grad or forward_ad.unpack_dual(self.images).tangent is not None  # type: ignore[no-untyped-call]
        constant = not moves and self.images.device.type == "cpu"
        return constant and self.kernel[0].numel() <= LARGEST_PATCH

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return the outputs' mean and variance, each [outputs], from those of the patches p: w.E[p] and w'Cov[p]w.

        Exact to any order in the kernel, and in float64 from the images' covariance on (error 2e-7). It saves two
        passes over the outputs and two over their gradient.
        """
        mean, covariance = self._patch_moments()
        rows = self.kernel.flatten(1).double()  # [outputs, patch]
        var = ((rows @ covariance) * rows).sum(1)
        return (rows @ mean).to(self.kernel.dtype), var.to(self.kernel.dtype)

    @torch.no_grad()
    def _patch_moments(self) -> tuple[Tensor, Tensor]:
        """Return the mean [patch] and the uncorrected covariance [patch, patch] of all patches, in float64."""
        size, step = self.kernel.shape[-1], self.stride
        centre = float(self.images.mean())  # subtracted, or the covariance would lose digits
        padded = F.pad(self.images - centre, (self.padding,) * 4, value=-centre)
        windows = padded.unfold(2, size, step).unfold(3, size, step)
        n, channels, height, width = windows.shape[:4]  # [n, channels, height, width, size, size]
        patches = windows.permute(0, 1, 4, 5, 2, 3).reshape(n, channels * size * size, height * width)
        mean = patches.mean((0, 2)).double()
        # one product per image, summed in float64: a single long one in float32 would lose two digits
        products = torch.bmm(patches, patches.transpose(1, 2)).double().sum(0) / (n * height * width)
        return mean + centre, products - torch.outer(mean, mean)


def pooled_convolution(images: Tensor, kernel: Tensor) -> Tensor:
    """Return ``max_pool2d(conv2d(images, kernel, padding=1), 2)``: [n, outputs, height // 2, width // 2].

    It is differentiable in the kernel [outputs, 1, 3, 3] to any order. The images [n, 1, height, width] are constants
    on the CPU, float32 or float64.
    """
    if not _has_numba():
        return F.max_pool2d(F.conv2d(images, kernel, padding=1), 2)
    return PooledConvolution.apply(F.pad(images, (1,) * 4), kernel)  # type: ignore[no-untyped-call, no-any-return]


class PooledConvolution(torch.autograd.Function):
    """Padded images [n, 1, height + 2, width + 2] and kernels to the largest of every four outputs."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, kernel: Tensor) -> Tensor:
        values = _blank(padded, len(kernel))
        places = torch.empty_like(values)
        _loops().choose(*_arrays(padded[:, 0], _taps(kernel), values, places))
        ctx.save_for_backward(padded, places)
        ctx.save_for_forward(padded, places)
        return values.permute(0, 3, 1, 2)

    @staticmethod
    def jvp(ctx: Any, _: None, tangent: Tensor) -> Tensor:
        return Placed.apply(*ctx.saved_tensors, tangent, False)  # type: ignore[no-untyped-call, no-any-return]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[None, Tensor]:
        return None, Placed.apply(*ctx.saved_tensors, slope, True)  # type: ignore[no-untyped-call]


class Placed(torch.autograd.Function):
    """The linear map of kernels to the outputs at given places, or its adjoint, of slopes of outputs to kernels.

    Each is its own derivative, and the other's transpose. A sum over one image is in its own precision, over images by
    torch's.
    """

    @staticmethod
    def forward(ctx: Any, padded: Tensor, places: Tensor, values: Tensor, adjoint: bool) -> Tensor:
        ctx.adjoint = adjoint
        ctx.save_for_backward(padded, places)
        ctx.save_for_forward(padded, places)
        if adjoint:
            sums = padded.new_zeros(len(padded), 9, values.shape[1])
            _loops().gather(*_arrays(padded[:, 0], places, values.permute(0, 2, 3, 1).contiguous(), sums))
            return sums.sum(0).t().reshape(-1, 1, 3, 3)
        outputs = _blank(padded, len(values))
        _loops().select(*_arrays(padded[:, 0], places, _taps(values), outputs))
        return outputs.permute(0, 3, 1, 2)

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, tangent: Tensor, ___: None) -> Tensor:
        return Placed.apply(*ctx.saved_tensors, tangent, ctx.adjoint)  # type: ignore[no-untyped-call, no-any-return]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[None, None, Tensor, None]:
        return None, None, Placed.apply(*ctx.saved_tensors, slope, not ctx.adjoint), None  # type: ignore[no-untyped-call]


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
    import numba  # late: importing it takes as long as a small command

    def compiled(*, kept: bool) -> Loops:
        # products and sums may be fused and nothing else changed: no order of sums, and NaN stays NaN
        decorate = numba.njit(cache=kept, nogil=True, error_model="numpy", fastmath={"contract"})
        return Loops(*map(decorate, (_choose, _select, _gather)))

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
                    upper_left, right = x[image, y, z], x[image, y, z + 1]
                    below, across = x[image, y + 1, z], x[image, y + 1, z + 1]
                    for output in range(outputs):
                        place = places[image, row, column, output]
                        pixel = upper_left
                        if place == one:
                            pixel = right
                        if place == two:
                            pixel = below
                        if place == three:
                            pixel = across
                        sums[image, index, output] += pixel * slope[image, row, column, output]
