r"""Batch normalization that is right at second order and accurate in float32.

Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167, algorithm 1:

    y = gamma * (x - mean) / sqrt(var + eps) + beta,    mean, var over the batch and space

torch 2.13's own is silently wrong under ``grad(vmap(grad))`` (off by 0.5-5%), and on
CPU about 500 times less accurate in channels_last than in NCHW. Here are two that are neither:

* the statistics are primitive operations where a transform of torch.func differentiates them;
* ``BatchStatistics`` outside of transforms: torch's kernel, made accurate, and exact to any order.

Max-pooling commutes with a map that grows, so where every gamma is positive the pooling comes first and
the map sees a quarter of the values (``Normalization.pooled``). A Conv-4 gradient of 75 images takes 105 ms
so, 115 without pooling first, 150 of primitive operations, and 148 of torch's own in NCHW (one core).

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

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.base import Tensors

EPSILON = 1e-5
MOMENTUM = 0.1  # weight of a new batch in the running averages, torch's default
MODES = ("batch", "support", "frozen", "per_step")


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
        return mean, var

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        """Pull the slopes of mean and variance back to x, in one pass over it."""
        x, mean = ctx.saved_tensors
        shape, count = _channel_shape(x), x.numel() // x.shape[1]
        spread = 2 / count * slopes[1]
        return torch.addcmul((slopes[0] / count - mean * spread).reshape(shape), x, spread.reshape(shape))


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

    def statistics(self, layer: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and variance that a layer normalizes x [n, channels, *space] with: each [channels]."""
        if self.given is not None:
            return self.given[f"{layer}.mean"], self.given[f"{layer}.var"]
        if self.fused:
            mean, var = BatchStatistics.apply(x)  # type: ignore[no-untyped-call]
        else:
            var, mean = torch.var_mean(x, [axis for axis in range(x.ndim) if axis != 1], correction=0)
        self.collected[f"{layer}.mean"], self.collected[f"{layer}.var"] = mean, var
        return mean, var

    def __call__(self, layer: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Normalize [n, channels, *space] over everything but the channels."""
        return _affine(x, self.statistics(layer, x), weight, bias)

    def pooled(self, layer: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Normalize, then max-pool 2x2: [n, channels, height, width] to a quarter of it."""
        if self.fused and bool((weight > 0).all()):
            statistics = self.statistics(layer, x)
            return _affine(F.max_pool2d(x, 2), statistics, weight, bias)
        return F.max_pool2d(self(layer, x, weight, bias), 2)


def _affine(x: Tensor, statistics: tuple[Tensor, Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    mean, var = statistics
    scale, shape = weight * torch.rsqrt(var + EPSILON), _channel_shape(x)
    return torch.addcmul((bias - mean * scale).reshape(shape), x, scale.reshape(shape))


def running_average(old: Tensors, new: Tensors) -> Tensors:
    """Move running statistics towards a batch's; takes the batch's own where there are none yet."""
    if not old:
        return {name: value.detach().clone() for name, value in new.items()}
    return {name: torch.lerp(old[name], new[name].detach(), MOMENTUM) for name in old}
