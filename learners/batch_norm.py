r"""Batch normalization that is right at second order and accurate in float32.

Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167, algorithm 1:

    y = gamma * (x - mean) / sqrt(var + eps) + beta,    mean, var over the batch and space

torch 2.13's own is silently wrong under ``grad(vmap(grad))`` (off by 0.5-5%), and on
CPU about 500 times less accurate in channels_last than in NCHW. Here are two that are neither:

* primitive operations, which every transform differentiates rightly;
* ``FusedNorm``, torch's kernels with accurate statistics put in, outside of transforms: a Conv-4 gradient
  of 75 images takes 92 ms against 150 of primitive operations and 146 of torch's own in NCHW (one core).

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


class FusedNorm(torch.autograd.Function):
    """Map x [n, channels, *space], gamma and beta to y and the batch's mean and variance.

    The backward pass is torch's kernel; where its own derivative is wanted it is the formula of Ioffe and
    Szegedy, section 3, written in the outputs ``mean`` and ``var``, so that autograd reaches x through
    them as well: exact to any order.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalize with the batch's own statistics."""
        mean, var = batch_statistics(x)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.set_materialize_grads(False)
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=EPSILON), mean, var

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, ...]:
        """Pull the slopes of y, mean and var back to x, gamma and beta."""
        x, weight, mean, var = ctx.saved_tensors
        of_y, of_mean, of_var = slopes
        grads: tuple[Tensor | None, ...] = (None, None, None)
        if of_y is not None:
            pullback = _formula if torch.is_grad_enabled() else _kernel
            grads = pullback(of_y, x, weight, mean, var)
        shape, count = _channel_shape(x), x.numel() // x.shape[1]
        through = None if of_mean is None else (of_mean / count).reshape(shape).expand_as(x)
        if of_var is not None:
            spread = (x - mean.reshape(shape)) * (2 / count * of_var).reshape(shape)
            through = spread if through is None else through + spread
        if through is None:
            return grads
        return through if grads[0] is None else grads[0] + through, *grads[1:]


def _channel_shape(x: Tensor) -> list[int]:
    return [1, -1] + [1] * (x.ndim - 2)


def _kernel(of_y: Tensor, x: Tensor, weight: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, ...]:
    inverse = torch.rsqrt(var + EPSILON)
    wanted = [True, True, True]
    return torch.ops.aten.native_batch_norm_backward(  # type: ignore[no-any-return]
        of_y, x, weight, None, None, mean, inverse, True, EPSILON, wanted
    )


def _formula(of_y: Tensor, x: Tensor, weight: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, ...]:
    shape, axes = _channel_shape(x), [axis for axis in range(x.ndim) if axis != 1]
    inverse, count = torch.rsqrt(var + EPSILON), x.numel() // x.shape[1]
    normal = (x - mean.reshape(shape)) * inverse.reshape(shape)
    of_bias, of_weight = of_y.sum(axes), (of_y * normal).sum(axes)
    rest = of_y - (of_bias / count).reshape(shape) - normal * (of_weight / count).reshape(shape)
    return rest * (weight * inverse).reshape(shape), of_weight, of_bias


class Normalization:
    """The statistics of one forward pass: given, or computed from the batch and collected.

    Args:
        given: ``<layer>.mean`` and ``<layer>.var`` of shape [channels]; None computes them.
        fused: Whether ``FusedNorm`` may be used: autograd only, no transform of torch.func.
    """

    def __init__(self, given: Tensors | None = None, *, fused: bool = False) -> None:
        self.given = given
        self.fused = fused
        self.collected: Tensors = {}

    def arrange(self, x: Tensor) -> Tensor:
        """Lay images out as the fused kernels like them."""
        return channels_last(x) if self.fused else x

    def __call__(self, layer: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Normalize [n, channels, *space] over everything but the channels."""
        if self.given is not None:
            return _affine(x, self.given[f"{layer}.mean"], self.given[f"{layer}.var"], weight, bias)
        if self.fused:
            y, mean, var = FusedNorm.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        else:
            var, mean = torch.var_mean(x, [axis for axis in range(x.ndim) if axis != 1], correction=0)
            y = _affine(x, mean, var, weight, bias)
        self.collected[f"{layer}.mean"], self.collected[f"{layer}.var"] = mean, var
        normalized: Tensor = y
        return normalized


def _affine(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    scale = weight * torch.rsqrt(var + EPSILON)
    shape = _channel_shape(x)
    return x * scale.reshape(shape) + (bias - mean * scale).reshape(shape)


def running_average(old: Tensors, new: Tensors) -> Tensors:
    """Move running statistics towards a batch's; takes the batch's own where there are none yet."""
    if not old:
        return {name: value.detach().clone() for name, value in new.items()}
    return {name: torch.lerp(old[name], new[name].detach(), MOMENTUM) for name in old}
