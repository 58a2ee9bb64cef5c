r"""Batch normalization that is right at second order and accurate in float32.

Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167, algorithm 1:

    y = gamma * (x - mean) / sqrt(var + eps) + beta,    mean, var over the batch and space

torch 2.13's own is silently wrong under ``grad(vmap(grad))`` (off by 0.5-5%), and on
CPU about 500 times less accurate in channels_last than in NCHW. Here are two that are neither:

* the statistics are primitive operations where a transform of torch.func differentiates them;
* ``BatchStatistics`` outside of transforms: torch's kernel, made accurate, and exact to any order; ``Normalized`` is
  the same with the map behind it, where nothing stands between the two.

Max-pooling commutes with a map that grows, so where every gamma is positive the pooling comes first and
the map sees a quarter of the values (``Normalization.pooled``).

The statistics of the first convolution of grey images need no pass over its output, the largest tensor of the
network: a convolution is linear in its patches, so they follow from the patches' own mean and covariance
(``Convolution.statistics``).

Where the statistics come from is a declared mode, because it decides whether a number
is transductive:

=============  ================================================  ==============
mode           statistics of a query pass                        setting
=============  ================================================  ==============
``batch``      the query batch itself (MAML's own protocol)      transductive
``support``    the support set, at the same parameters           inductive
``frozen``     running averages of meta-training                 inductive
``per_step``   the query batch; gamma and beta learned per step  transductive
=============  ================================================  ==============
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from metaloom.learners.base import Tensors

EPSILON = 1e-5
MOMENTUM = 0.1  # weight of a new batch in the running averages, torch's default
MODES = ("batch", "support", "frozen", "per_step")
LARGEST_PATCH = 12  # values in a patch up to which its covariance is cheaper than a pass over the output


def channels_last(x: Tensor) -> Tensor:
    """Lay images [n, channels, height, width] out with the channels innermost; the rest as they are.

    torch's CPU convolutions and pooling are 1.5 and 10 times faster so. ``contiguous(memory_format=...)``
    would leave a single channel as it is, and every layer after it would follow: the strides are set by hand.
    """
    if x.ndim != 4 or x.device.type != "cpu":
        return x
    n, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(-1).view(n, height, width, channels).permute(0, 3, 1, 2)


def batch_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the uncorrected variance of every channel of [n, channels, *space].

    On CPU, torch's kernel adds up a channel in one float32 (error 7e-6), and ``var_mean`` is 13 times
    slower. So the kernel takes every pixel as a channel of its own, and the pixels are put together
    exactly: the mean of the variances plus the variance of the means (error 8e-8).
    """
    if x.device.type != "cpu":
        var, mean = torch.var_mean(x, [axis for axis in range(x.ndim) if axis != 1], correction=0)
        return mean, var
    pixels = x.movedim(1, -1).reshape(x.shape[0], -1, 1, 1)
    means, variances = (v.view(-1, x.shape[1]) for v in torch.batch_norm_update_stats(pixels, None, None, MOMENTUM))
    mean = means.mean(0)
    return mean, variances.mean(0) + (means - mean).square().mean(0)


class BatchStatistics(torch.autograd.Function):
    """Map x [n, channels, *space] to the batch's mean and variance of every channel.

    The backward pass, dx = dmean / count + 2 (x - mean) dvar / count, is written in the output ``mean``, so that
    autograd reaches x through it as well: exact to any order.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance, each [channels]."""
        mean, var = batch_statistics(x)
        ctx.save_for_backward(x, mean)
        ctx.save_for_forward(x, mean)
        return mean, var

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """Return how mean and variance move with x."""
        x, mean = ctx.saved_tensors
        axes = [axis for axis in range(x.ndim) if axis != 1]
        moved = tangent.mean(axes)
        return moved, 2 * ((x * tangent).mean(axes) - mean * moved)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        """Pull the slopes of mean and variance back to x, in one pass over it."""
        x, mean = ctx.saved_tensors
        shape, count = _channel_shape(x), x.numel() // x.shape[1]
        spread = 2 / count * slopes[1]
        return torch.addcmul((slopes[0] / count - mean * spread).reshape(shape), x, spread.reshape(shape))


def _sums(slope: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of slope * x and of slope over all but the channels of [n, channels, *space].

    Where they are not differentiated again, torch's kernel takes both in one pass on CPU, with no tensor of the
    products; as in ``batch_statistics``, every pixel is a channel of its own to it.
    """
    if x.device.type != "cpu" or torch.is_grad_enabled():
        axes = [axis for axis in range(x.ndim) if axis != 1]
        return (slope * x).sum(axes), slope.sum(axes)
    slopes, pixels = (one.movedim(1, -1).reshape(one.shape[0], -1, 1, 1) for one in (slope, x))
    zeros, ones = x.new_zeros(pixels.shape[1]), x.new_ones(pixels.shape[1])
    sums = torch.ops.aten.native_batch_norm_backward(
        slopes, pixels, None, zeros, ones, None, None, False, 0.0, [False, True, True]
    )
    by_product, by_slope = (one.view(-1, x.shape[1]).sum(0) for one in sums[1:])
    return by_product, by_slope


class Affine(torch.autograd.Function):
    """Map x [n, channels, *space] to x * scale + shift by channel: ``addcmul``, whose backward pass first copies x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Return a tensor as x."""
        ctx.save_for_backward(x, scale)
        ctx.save_for_forward(x, scale)
        shape = _channel_shape(x)
        return torch.addcmul(shift.reshape(shape), x, scale.reshape(shape))

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        """Return how the result moves with x, scale and shift."""
        x, scale = ctx.saved_tensors
        shape = _channel_shape(x)
        by_x, by_scale, by_shift = tangents
        moved = torch.zeros_like(x) if by_x is None else by_x * scale.reshape(shape)
        if by_scale is not None:
            moved = torch.addcmul(moved, x, by_scale.reshape(shape))
        return moved if by_shift is None else moved + by_shift.reshape(shape)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pull a slope back to x, scale and shift."""
        x, scale = ctx.saved_tensors
        return slopes[0] * scale.reshape(_channel_shape(x)), *_sums(slopes[0], x)


class Normalized(torch.autograd.Function):
    """Map x [n, channels, *space], gamma and beta to y, and to the batch's mean and variance of every channel.

    As ``BatchStatistics`` and the map together, whose slopes by x meet here in one tensor. The backward pass is written
    in the outputs ``mean`` and ``var``: exact to any order.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return y as x, and mean and variance, each [channels]."""
        mean, var = batch_statistics(x)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.save_for_forward(x, weight, mean, var)
        return _affine(x, (mean, var), weight, bias), mean, var

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        """Return how y, mean and variance move with x, gamma and beta."""
        x, weight, mean, var = ctx.saved_tensors
        tangent = torch.zeros_like(x) if tangents[0] is None else tangents[0]
        weight_tangent, bias_tangent = tangents[1:]
        axes, shape = [axis for axis in range(x.ndim) if axis != 1], _channel_shape(x)
        root = torch.rsqrt(var + EPSILON)
        mean_tangent = tangent.mean(axes)
        var_tangent = 2 * ((x * tangent).mean(axes) - mean * mean_tangent)
        scale, scale_tangent = weight * root, -0.5 * weight * root**3 * var_tangent
        if weight_tangent is not None:
            scale_tangent = scale_tangent + weight_tangent * root
        moved = -mean_tangent * scale - mean * scale_tangent
        if bias_tangent is not None:
            moved = moved + bias_tangent
        y = torch.addcmul(moved.reshape(shape), x, scale_tangent.reshape(shape))
        return torch.addcmul(y, tangent, scale.reshape(shape)), mean_tangent, var_tangent

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pull the slopes of y, mean and variance back to x, gamma and beta."""
        x, weight, mean, var = ctx.saved_tensors
        count, root, shape = x.numel() // x.shape[1], torch.rsqrt(var + EPSILON), _channel_shape(x)
        by_product, by_bias = _sums(slopes[0], x)
        by_scale, scale = by_product - mean * by_bias, weight * root
        spread = 2 / count * (slopes[2] - 0.5 * by_scale * scale * root.square())
        shift = (slopes[1] - by_bias * scale) / count - mean * spread
        by_x = torch.addcmul(shift.reshape(shape), x, spread.reshape(shape))
        if torch.is_grad_enabled():  # it will be differentiated again
            by_x = torch.addcmul(by_x, slopes[0], scale.reshape(shape))
        else:
            by_x.addcmul_(slopes[0], scale.reshape(shape))
        return by_x, by_scale * root, by_bias


class Convolution(NamedTuple):
    """What a layer's input was made of: images [n, inputs, height, width] by kernel [outputs, inputs, size, size]."""

    images: Tensor
    kernel: Tensor
    stride: int = 1
    padding: int = 1

    def outputs(self) -> Tensor:
        """Return [n, outputs, height, width]."""
        return F.conv2d(self.images, self.kernel, stride=self.stride, padding=self.padding)

    @property
    def has_small_patches(self) -> bool:
        """Whether ``statistics`` is the cheaper way: constant images, few values in a patch, and a CPU."""
        moves = self.images.requires_grad or forward_ad.unpack_dual(self.images).tangent is not None  # type: ignore[no-untyped-call]
        constant = not moves and self.images.device.type == "cpu"
        return constant and self.kernel[0].numel() <= LARGEST_PATCH

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return the outputs' mean and variance, each [outputs], from those of the patches p: w.E[p] and w'Cov[p]w.

        Exact to any order in the kernel, and in float64 from the images' covariance on (error 2e-7). Against
        ``BatchStatistics`` it saves two passes over the outputs' gradient.
        """
        mean, covariance = self._patch_moments()
        rows = self.kernel.flatten(1).double()  # [outputs, patch]
        var = ((rows @ covariance) * rows).sum(1)
        return (rows @ mean).to(self.kernel.dtype), var.to(self.kernel.dtype)

    @torch.no_grad()
    def _patch_moments(self) -> tuple[Tensor, Tensor]:
        """Return the mean [patch] and the uncorrected covariance [patch, patch] of all patches, in float64."""
        size, step = self.kernel.shape[-1], self.stride
        windows = F.pad(self.images, (self.padding,) * 4).unfold(2, size, step).unfold(3, size, step)
        n, channels, height, width = windows.shape[:4]  # [n, channels, height, width, size, size]
        patches = windows.permute(0, 1, 4, 5, 2, 3).reshape(n, channels * size * size, height * width)
        mean = patches.mean((0, 2))
        patches = patches - mean.unsqueeze(-1)
        # one product an image, summed in float64: a single long one in float32 would cost two digits
        products = torch.bmm(patches, patches.transpose(1, 2)).double().sum(0)
        return mean.double(), products / (n * height * width)


def _channel_shape(x: Tensor) -> list[int]:
    return [1, -1] + [1] * (x.ndim - 2)


class Normalization:
    """The statistics of one forward pass: given, or computed from the batch and collected.

    Args:
        given: ``<layer>.mean`` and ``<layer>.var`` of shape [channels]; None computes them.
        fused: Whether ``BatchStatistics`` may be used: autograd only, no transform of torch.func.
    """

    def __init__(self, given: Tensors | None = None, *, fused: bool = False) -> None:
        self.given = given
        self.fused = fused
        self.collected: Tensors = {}

    def arrange(self, x: Tensor) -> Tensor:
        """Lay images out as the fused kernels like them."""
        return channels_last(x) if self.fused else x

    def statistics(self, layer: str, x: Tensor, made: Convolution | None = None) -> tuple[Tensor, Tensor]:
        """Return the mean and variance that a layer normalizes x [n, channels, *space] with: each [channels].

        Args:
            layer: Its name.
            x: The values.
            made: The convolution whose outputs x is, where it is one.
        """
        if self.given is not None:
            return self.given[f"{layer}.mean"], self.given[f"{layer}.var"]
        if self.fused and made is not None and made.has_small_patches:
            mean, var = made.statistics()
        elif self.fused:
            mean, var = BatchStatistics.apply(x)  # type: ignore[no-untyped-call]
        else:
            var, mean = torch.var_mean(x, [axis for axis in range(x.ndim) if axis != 1], correction=0)
        self.collected[f"{layer}.mean"], self.collected[f"{layer}.var"] = mean, var
        return mean, var

    def __call__(self, layer: str, x: Tensor, weight: Tensor, bias: Tensor, made: Convolution | None = None) -> Tensor:
        """Normalize [n, channels, *space] over everything but the channels."""
        if self.fused and self.given is None and not (made is not None and made.has_small_patches):
            y, mean, var = Normalized.apply(x, weight, bias)  # type: ignore[no-untyped-call]
            self.collected[f"{layer}.mean"], self.collected[f"{layer}.var"] = mean, var
            return y  # type: ignore[no-any-return]
        return _affine(x, self.statistics(layer, x, made), weight, bias, fused=self.fused)

    def pooled(self, layer: str, x: Tensor, weight: Tensor, bias: Tensor, made: Convolution | None = None) -> Tensor:
        """Normalize, then max-pool 2x2: [n, channels, height, width] to a quarter of it."""
        if self.fused and bool((weight > 0).all()):
            statistics = self.statistics(layer, x, made)
            return _affine(F.max_pool2d(x, 2), statistics, weight, bias, fused=True)
        return F.max_pool2d(self(layer, x, weight, bias, made), 2)


def _affine(
    x: Tensor, statistics: tuple[Tensor, Tensor], weight: Tensor, bias: Tensor, *, fused: bool = False
) -> Tensor:
    mean, var = statistics
    scale, shape = weight * torch.rsqrt(var + EPSILON), _channel_shape(x)
    shift = bias - mean * scale
    if fused:
        return Affine.apply(x, scale, shift)  # type: ignore[no-untyped-call, no-any-return]
    return torch.addcmul(shift.reshape(shape), x, scale.reshape(shape))


def running_average(old: Tensors, new: Tensors) -> Tensors:
    """Move running statistics towards a batch's; takes the batch's own where there are none yet."""
    if not old:
        return {name: value.detach().clone() for name, value in new.items()}
    return {name: torch.lerp(old[name], new[name].detach(), MOMENTUM) for name in old}
