r"""Batch normalization that is right at second order and accurate in float32.

Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167, algorithm 1:

    y = gamma * (x - mean) / sqrt(var + eps) + beta,    mean, var over the batch and space

torch 2.13's own is silently wrong under ``grad(vmap(grad))`` (off by 0.5-5%), and on CPU about 500 times less accurate
in channels_last than in NCHW. Here the statistics are primitive operations where a transform of torch.func
differentiates them. Elsewhere statistics and map are one function of autograd (``Normalized``, and ``Mapped`` for given
statistics), accurate and exact to any order.

Max-pooling commutes with an increasing map, so where every gamma is positive the pooling comes first and the map has a
quarter of the values. The first convolution of grey images is not computed as a whole: its statistics follow from the
images, and its outputs are computed and pooled in one pass (``pooled_convolution.py``).

Where a query pass finds its statistics is a declared mode, because it decides whether a number is transductive:

* ``batch``: the query batch itself (MAML's own protocol): transductive;
* ``support``: the support set, at the same parameters: inductive;
* ``frozen``: running averages of meta-training: inductive;
* ``per_step``: the query batch; gamma and beta are learned per step: transductive.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.networks.pooled_convolution import Convolution
from metaloom.learners.tensors import Tensors

EPSILON = 1e-5
MOMENTUM = 0.1  # weight of a new batch in the running averages, torch's default
SMALL = 2**18  # values of which two passes cost less than the kernel's detour


def channels_last(x: Tensor) -> Tensor:
    """Lay images [n, channels, height, width] out with the channels innermost; others stay as they are.

    torch's CPU convolutions and pooling are then 1.5 and 10 times faster. ``contiguous(memory_format=...)`` would leave
    a single channel as it is, and all later layers with it: the strides are set by hand.
    """
    if x.ndim != 4 or x.device.type != "cpu":
        return x
    n, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(-1).view(n, height, width, channels).permute(0, 3, 1, 2)


def batch_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the uncorrected variance of every channel of [n, channels, *space].

    On CPU ``var_mean`` is many times slower than two passes, and torch's kernel adds up a channel in one float32
    (error 7e-6). For large tensors the kernel takes every pixel as a channel, and the pixels are combined exactly: the
    mean of the variances plus the variance of the means (error 2e-7).
    """
    axes = _but_channels(x)
    if x.device.type != "cpu":
        var, mean = torch.var_mean(x, axes, correction=0)
        return mean, var
    if x.numel() <= SMALL:
        centre = x.mean(axes, keepdim=True)
        return centre.flatten(), (x - centre).square_().mean(axes)
    pixels = x.movedim(1, -1).reshape(x.shape[0], -1, 1, 1)
    means, variances = (v.view(-1, x.shape[1]) for v in torch.batch_norm_update_stats(pixels, None, None, MOMENTUM))
    mean = means.mean(0)
    return mean, variances.mean(0) + (means - mean).square().mean(0)


class Mapped(torch.autograd.Function):
    """Map x [n, channels, *space] by given statistics, gamma and beta, each [channels]; exact to any order.

    One function, because autograd's overhead for its dozen small operations exceeds their work.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, mean, var, weight)
        ctx.save_for_forward(x, mean, var, weight)
        return _affine(x, (mean, var), weight, bias)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        x, mean, var, weight = ctx.saved_tensors
        by_x, by_mean, by_var, by_weight, by_bias = _filled(tangents, (x, mean, var, weight, weight))
        return _moved((x, by_x), (mean, by_mean), (var, by_var), (weight, by_weight), by_bias)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, ...]:
        x, mean, var, weight = ctx.saved_tensors
        scale, *slopes = _slopes(x, mean, var, weight, slope)
        return slope * scale.reshape(_channel_shape(x)), *slopes


class Normalized(torch.autograd.Function):
    """``Mapped`` by the statistics of x: (x, pooled or None, gamma, beta) to y, mean and variance, each [channels].

    y is the map of ``pooled``, or of x where that is None; the slopes by x through y and through the statistics are
    then one tensor. The backward pass is written in the outputs ``mean`` and ``var``: exact to any order.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, pooled: Tensor | None, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)  # the statistics are seldom differentiated
        mean, var = batch_statistics(x)
        ctx.save_for_backward(x, pooled, weight, mean, var)
        ctx.save_for_forward(x, pooled, weight, mean, var)
        return _affine(x if pooled is None else pooled, (mean, var), weight, bias), mean, var

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        x, pooled, weight, mean, var = ctx.saved_tensors
        target = x if pooled is None else pooled
        tangent, moved, by_weight, by_bias = _filled(tangents, (x, target, weight, weight))
        axes = _but_channels(x)
        mean_tangent = tangent.mean(axes)
        var_tangent = 2 * ((x * tangent).mean(axes) - mean * mean_tangent)
        pairs = (target, tangent if pooled is None else moved), (mean, mean_tangent), (var, var_tangent)
        return _moved(*pairs, (weight, by_weight), by_bias), mean_tangent, var_tangent

    @staticmethod
    def backward(
        ctx: Any, slope: Tensor | None, mean_slope: Tensor | None, var_slope: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, pooled, weight, mean, var = ctx.saved_tensors
        target = x if pooled is None else pooled
        slope = torch.zeros_like(target) if slope is None else slope
        scale, by_mean, by_var, by_weight, by_bias = _slopes(target, mean, var, weight, slope)
        by_mean = by_mean if mean_slope is None else by_mean + mean_slope
        by_var = by_var if var_slope is None else by_var + var_slope
        count, shape = x.numel() // x.shape[1], _channel_shape(x)
        spread = 2 / count * by_var
        shift = by_mean / count - mean * spread
        by_x = torch.addcmul(shift.reshape(shape), x, spread.reshape(shape))
        if pooled is not None:
            by_pooled = slope * scale.reshape(shape)
            if by_pooled.requires_grad:
                by_pooled.register_hook(_laid_out)  # type: ignore[no-untyped-call]
            return by_x, by_pooled, by_weight, by_bias
        if torch.is_grad_enabled():  # it will be differentiated again
            by_x = torch.addcmul(by_x, slope, scale.reshape(shape))
        else:
            by_x.addcmul_(slope, scale.reshape(shape))
        return by_x, None, by_weight, by_bias


Moving = tuple[Tensor, Tensor]  # a value and its tangent


def _filled(tangents: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(x) if one is None else one for one, x in zip(tangents, like, strict=True)]


def _laid_out(slope: Tensor | None) -> Tensor | None:
    """Copy a second derivative to channels-last: torch's pooling returns rows, which slow down later operations."""
    return None if slope is None else channels_last(slope)


def _slopes(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, slope: Tensor) -> tuple[Tensor, ...]:
    """Return the scale by channel, and the slopes of mean, variance, gamma and beta, each [channels]."""
    axes, root = _but_channels(x), torch.rsqrt(var + EPSILON)
    by_bias, scale = slope.sum(axes), weight * root
    by_weight = ((slope * x).sum(axes) - mean * by_bias) * root
    return scale, by_bias * -scale, by_weight * (-0.5 * root * scale), by_weight, by_bias


def _moved(x: Moving, mean: Moving, var: Moving, weight: Moving, bias_tangent: Tensor) -> Tensor:
    """Return the tangent of ``_affine``."""
    shape, root = _channel_shape(x[0]), torch.rsqrt(var[0] + EPSILON)
    scale = weight[0] * root
    scale_tangent = weight[1] * root - 0.5 * scale * root.square() * var[1]
    shift_tangent = bias_tangent - mean[1] * scale - mean[0] * scale_tangent
    moved = torch.addcmul(shift_tangent.reshape(shape), x[0], scale_tangent.reshape(shape))
    return torch.addcmul(moved, x[1], scale.reshape(shape))


def _channel_shape(x: Tensor) -> list[int]:
    return [1, -1] + [1] * (x.ndim - 2)


def _but_channels(x: Tensor) -> list[int]:
    return [axis for axis in range(x.ndim) if axis != 1]


class Normalization:
    """The statistics of one forward pass: given, or computed from the batch and collected.

    Args:
        given: ``<layer>.mean`` and ``<layer>.var`` of shape [channels]; None computes them.
        fused: Whether ``Normalized`` may be used: autograd only, no transform of torch.func.
        between: What becomes of the hidden layer at a place between two blocks, such as manifold mixup: (place, x) to
            x; places are numbered from 1 (``Network.places``).
    """

    def __init__(
        self,
        given: Tensors | None = None,
        *,
        fused: bool = False,
        between: Callable[[int, Tensor], Tensor] | None = None,
    ) -> None:
        self.given = given
        self.fused = fused
        self._between = between
        self.collected: Tensors = {}

    def between(self, place: int, x: Tensor) -> Tensor:
        """Return what becomes of the hidden layer x [n, ...] between two blocks: x, where nothing is asked."""
        return x if self._between is None else self.arrange(self._between(place, x))

    def arrange(self, x: Tensor) -> Tensor:
        """Lay images out for the fused kernels."""
        return channels_last(x) if self.fused else x

    def __call__(
        self, layer: str, x: Tensor | Convolution, weight: Tensor, bias: Tensor, *, pool: bool = False
    ) -> Tensor:
        """Normalize x [n, channels, *space], or a convolution's outputs, over everything but the channels.

        ``weight`` (gamma) and ``bias`` (beta) are [channels]; ``pool`` max-pools 2x2 afterwards.
        """
        if pool and not (self.fused and float(weight.detach().amin()) > 0):
            return F.max_pool2d(self(layer, x, weight, bias), 2)
        statistics = self._without_pass(layer, x)
        if statistics is not None and self.fused:
            return Mapped.apply(_values(x, pool), *statistics, weight, bias)  # type: ignore[no-untyped-call, no-any-return]
        values = _values(x, False)
        if self.fused:
            pooled = F.max_pool2d(values, 2) if pool else None
            y, mean, var = Normalized.apply(values, pooled, weight, bias)  # type: ignore[no-untyped-call]
            self._collect(layer, mean, var)
            return y  # type: ignore[no-any-return]
        if statistics is None:
            var, mean = torch.var_mean(values, _but_channels(values), correction=0)
            statistics = self._collect(layer, mean, var)
        return _affine(values, statistics, weight, bias)

    def by(
        self, layer: str, x: Tensor, weight: Tensor, bias: Tensor, measure: Callable[[], tuple[Tensor, Tensor]]
    ) -> Tensor:
        """Normalize x by a mean and variance that ``measure`` finds where none are given, as over a part of x."""
        statistics = self._without_pass(layer, x) or self._collect(layer, *measure())
        return _affine(x, statistics, weight, bias)

    def _without_pass(self, layer: str, x: Tensor | Convolution) -> tuple[Tensor, Tensor] | None:
        """Return the mean and variance of a layer that need no pass over its values; None where they do."""
        if self.given is not None:
            return self.given[f"{layer}.mean"], self.given[f"{layer}.var"]
        if self.fused and isinstance(x, Convolution) and x.has_small_patches:
            return self._collect(layer, *x.statistics())
        return None

    def _collect(self, layer: str, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        self.collected[f"{layer}.mean"], self.collected[f"{layer}.var"] = mean, var
        return mean, var


def _values(x: Tensor | Convolution, pool: bool) -> Tensor:
    if isinstance(x, Convolution):
        return x.pooled() if pool else x.outputs()
    return F.max_pool2d(x, 2) if pool else x


def _affine(x: Tensor, statistics: tuple[Tensor, Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    mean, var = statistics
    scale, shape = weight * torch.rsqrt(var + EPSILON), _channel_shape(x)
    shift = bias - mean * scale
    return torch.addcmul(shift.reshape(shape), x, scale.reshape(shape))


def normalized_convolution(theta: Tensors, name: str, x: Tensor, norm: Normalization, stride: int = 1) -> Tensor:
    """Apply the convolution ``NAME.conv``, padded to keep the size at a stride of 1, and its norm ``NAME.norm``."""
    kernel, gamma, beta = (theta[f"{name}.{one}"] for one in ("conv.weight", "norm.weight", "norm.bias"))
    return norm(f"{name}.norm", Convolution(x, kernel, stride, kernel.shape[-1] // 2), gamma, beta)


def pooled_statistics(batches: Sequence[Tensors]) -> Tensors:
    """Return the statistics of several equally large batches together: the variance is of all their examples."""
    pooled: Tensors = {}
    for name in batches[0]:
        each = torch.stack([one[name].detach() for one in batches])
        if name.endswith(".var"):
            means = torch.stack([one[f"{name.removesuffix('.var')}.mean"].detach() for one in batches])
            pooled[name] = each.mean(0) + means.var(0, correction=0)
        else:
            pooled[name] = each.mean(0)
    return pooled


def running_average(old: Tensors, new: Tensors) -> Tensors:
    """Move running statistics towards a batch's; those that are not there yet become the batch's, others stay."""
    moved = {
        name: torch.lerp(old[name], value.detach(), MOMENTUM) if name in old else value.detach().clone()
        for name, value in new.items()
    }
    return old | moved
