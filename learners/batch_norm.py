r"""Batch normalization that is right at second order and accurate in float32.

Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167, algorithm 1:

    y = gamma * (x - mean) / sqrt(var + eps) + beta,    mean, var over the batch and space

torch 2.13's own is silently wrong under ``grad(vmap(grad))`` (off by 0.5-5%), and on
CPU about 500 times less accurate in channels_last than in NCHW. This one is made of
primitive operations, which both transform correctly.

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

import torch
from torch import Tensor

from metaloom.learners.base import Tensors

EPSILON = 1e-5
MOMENTUM = 0.1  # weight of a new batch in the running averages, torch's default
MODES = ("batch", "support", "frozen", "per_step")


class Normalization:
    """The statistics of one forward pass: given, or computed from the batch and collected.

    Args:
        given: ``<layer>.mean`` and ``<layer>.var`` of shape [channels]; None computes them.
    """

    def __init__(self, given: Tensors | None = None) -> None:
        self.given = given
        self.collected: Tensors = {}

    def __call__(self, layer: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Normalize [n, channels, *space] over everything but the channels."""
        if self.given is not None:
            mean, var = self.given[f"{layer}.mean"], self.given[f"{layer}.var"]
        else:
            axes = [axis for axis in range(x.ndim) if axis != 1]
            var, mean = torch.var_mean(x, axes, correction=0)
            self.collected[f"{layer}.mean"], self.collected[f"{layer}.var"] = mean, var
        shape = [1, -1] + [1] * (x.ndim - 2)
        scale = weight * torch.rsqrt(var + EPSILON)
        return x * scale.reshape(shape) + (bias - mean * scale).reshape(shape)


def running_average(old: Tensors, new: Tensors) -> Tensors:
    """Move running statistics towards a batch's; takes the batch's own where there are none yet."""
    if not old:
        return {name: value.detach().clone() for name, value in new.items()}
    return {name: torch.lerp(old[name], new[name].detach(), MOMENTUM) for name in old}
