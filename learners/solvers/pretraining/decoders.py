r"""Decoders: from the features of an example back to the example.

    mlp:  r = W_k a(... a(W_0 h + b_0) ...) + b_k

``convolution`` takes features as maps [c, h, w]. Transposed convolutions of 4x4 with a stride of 2 (Dumoulin and Visin,
2016, https://arxiv.org/abs/1603.07285, section 4) double them until they cover the image, which is their middle.

The size of a decoder is a knob; a wide one reconstructs from features that tell less.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Bounds, Choice, Int
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import linear_layers
from metaloom.learners.networks.mlp import ACTIVATIONS
from metaloom.learners.solvers.pretraining.base import PretrainingConfig
from metaloom.learners.tensors import Tensors

KERNEL = 4  # at a stride of 2 and a padding of 1 it doubles a map exactly, and each output has equally many terms
LAYER = "decoder"


@dataclass(frozen=True)
class DecoderConfig(PretrainingConfig):
    """The network that reconstructs an example from its features.

    Attributes:
        decoder: A multi-layer perceptron, or, of images, transposed convolutions.
        hidden: Widths of the perceptron's hidden layers; an empty list is a linear decoder.
        channels: Channels of the transposed convolutions.
        activation: The function after each layer but the last.
    """

    decoder: Literal["mlp", "convolution"] = "mlp"
    hidden: tuple[Annotated[int, Bounds(at_least=1)], ...] = (64,)
    channels: Annotated[int, Int(4, 256, log=True)] = 32
    activation: Annotated[str, Choice(tuple(ACTIVATIONS))] = "relu"


class Decoder:
    """Maps features [n, width] to examples [n, *inputs]; a function of its part of phi.

    Args:
        config: Its kind and size.
        inputs: Shape of one example.
    """

    def __init__(self, config: DecoderConfig, inputs: Sequence[int]) -> None:
        if config.decoder == "convolution" and len(inputs) != 3:
            raise LearnerError(
                "learner.prediction.decoder: convolution reconstructs images [channels, height, width], and this "
                f"task's examples have shape {tuple(inputs)}; use mlp"
            )
        self.config, self.inputs = config, tuple(inputs)

    def parameters(self, features: tuple[int, ...], generator: Generator) -> Tensors:
        """Draw it, for features of this shape."""
        if self.config.decoder == "mlp":
            widths = [math.prod(features), *self.config.hidden, math.prod(self.inputs)]
            return linear_layers(LAYER, widths, generator)
        maps = as_maps(features)
        doublings = self._doublings(maps)
        channels = [maps[0], *[self.config.channels] * (doublings - 1), self.inputs[0]]
        theta: Tensors = {}
        for layer in range(doublings):
            inputs, outputs = channels[layer], channels[layer + 1]
            bound = 1 / math.sqrt(inputs * KERNEL * KERNEL / 4)  # at a stride of 2 an output has a quarter of the terms
            weight = torch.empty(inputs, outputs, KERNEL, KERNEL).uniform_(-bound, bound, generator=generator)
            theta |= {f"{LAYER}{layer}.weight": weight, f"{LAYER}{layer}.bias": torch.zeros(outputs)}
        return theta

    def __call__(self, phi: Tensors, features: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Reconstruct the examples [n, *inputs] of features [n, width]; ``shape`` is that of one example's features."""
        activation = ACTIVATIONS[self.config.activation]
        layers = sum(name.startswith(LAYER) and name.endswith(".weight") for name in phi)
        hidden = features.reshape(-1, *as_maps(shape)) if self.config.decoder == "convolution" else features
        for layer in range(layers):
            weight, bias = phi[f"{LAYER}{layer}.weight"], phi[f"{LAYER}{layer}.bias"]
            if self.config.decoder == "convolution":
                hidden = F.conv_transpose2d(hidden, weight, bias, stride=2, padding=1)
            else:
                hidden = F.linear(hidden, weight, bias)
            hidden = activation(hidden) if layer < layers - 1 else hidden
        return middle(hidden, self.inputs) if self.config.decoder == "convolution" else hidden.reshape(-1, *self.inputs)

    def _doublings(self, maps: tuple[int, ...]) -> int:
        """Return how often maps are doubled to cover the image; once at least, to have a layer."""
        each = [math.ceil(math.log2(side / own)) for side, own in zip(self.inputs[1:], maps[1:], strict=True)]
        return max(*each, 1)


def as_maps(features: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of features as maps (channels, height, width): of a vector maps of one pixel."""
    return features if len(features) == 3 else (math.prod(features), 1, 1)


def middle(images: Tensor, inputs: tuple[int, ...]) -> Tensor:
    """Return the middle of images [n, channels, at least height, at least width] of the size of ``inputs``."""
    top, left = ((have - want) // 2 for have, want in zip(images.shape[2:], inputs[1:], strict=True))
    return images[:, :, top : top + inputs[1], left : left + inputs[2]]
