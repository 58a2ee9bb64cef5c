r"""A set encoder: one vector for a whole support set, whatever its size and order.

Zaheer et al., 2017, https://arxiv.org/abs/1703.06114, as in CNAPs (Requeima et al., 2019, section 3.1):

    z = mean_i e(x_i)

e is a small network of the raw examples: for images 3x3 convolutions with layer norm (which looks at one example
alone, so that z does not depend on the batch), ReLU and max pooling, averaged over the pixels; else two linear layers.
"""

import math

import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.networks.base import affine_parameters, conv_parameters, linear_layers
from metaloom.learners.tensors import Tensors

LAYERS = 2  # for examples that are not images


def set_encoder_parameters(inputs: tuple[int, ...], width: int, blocks: int, generator: Generator) -> Tensors:
    """Draw e for examples of shape ``inputs``; images get as many blocks as they can be halved, at most ``blocks``."""
    if len(inputs) != 3:
        return linear_layers("layer", [math.prod(inputs), *[width] * LAYERS], generator)
    halvings = max(1, int(math.log2(min(inputs[1:]))))
    phi: Tensors = {}
    for block in range(min(blocks, halvings)):
        phi |= conv_parameters(f"conv{block}", width if block else inputs[0], width, 3, generator)
        phi |= affine_parameters(f"norm{block}", width)
    return phi


def task_vector(phi: Tensors, x: Tensor) -> Tensor:
    """Average e over the examples x [n, *inputs]: [width]."""
    return (_of_images(phi, x) if "conv0.weight" in phi else _of_vectors(phi, x.flatten(1))).mean(0)


def _of_vectors(phi: Tensors, x: Tensor) -> Tensor:
    for layer in range(LAYERS):
        x = F.relu(F.linear(x, phi[f"layer{layer}.weight"], phi[f"layer{layer}.bias"]))
    return x


def _of_images(phi: Tensors, x: Tensor) -> Tensor:
    for block in range(sum(name.startswith("conv") for name in phi)):
        x = F.conv2d(x, phi[f"conv{block}.weight"], padding=1)
        x = F.relu(F.group_norm(x, 1, phi[f"norm{block}.weight"], phi[f"norm{block}.bias"]))
        x = F.max_pool2d(x, 2) if min(x.shape[2:]) > 1 else x
    return x.mean((2, 3))
