"""Recurrent networks over series: gated recurrent units and LSTMs.

A step that was not observed leaves the hidden values as they are, so that features do not depend on padding, and a gap
is passed over. Cost: about 10 small operations for each step and layer (``cells.py``).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Generator, Tensor

from metaloom.learners.domains import Int
from metaloom.learners.networks.base import ARCHITECTURES, Network, linear_parameters
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.series.cells import CELLS
from metaloom.learners.networks.series.observed import mean_over_time, series_channels, split_observed
from metaloom.learners.tensors import Tensors


@dataclass(frozen=True)
class RecurrentConfig:
    """Its size, and what of its hidden values the head reads.

    Attributes:
        width: Hidden values of each layer.
        layers: Layers, each of which reads the hidden values of the one before.
        read: `last` reads the top layer after the last observed step, `mean` its average over the observed steps, and
            `states` every layer after the last observed step, as TimeNet does.
    """

    width: Annotated[int, Int(1, 256, log=True)] = 32
    layers: Annotated[int, Int(1, 4)] = 1
    read: Literal["last", "mean", "states"] = "last"


class Recurrent(Network):
    """Layers ``layer0``, ``layer1`` ... of one kind of cell, and a head."""

    Config = RecurrentConfig
    config: RecurrentConfig
    any_length = True
    cell: ClassVar[str]

    def largest_map(self, images: int) -> int | None:
        return images * self.config.width * self.task.inputs[-1]

    def parameters(self, generator: Generator) -> Tensors:
        width, layers = self.config.width, self.config.layers
        inputs = series_channels(self.task, self.cell)
        theta: Tensors = {}
        for layer in range(layers):
            theta |= CELLS[self.cell].parameters(f"layer{layer}", width if layer else inputs, width, generator)
        features = width * (layers if self.config.read == "states" else 1)
        return theta | linear_parameters("head", features, self.task.outputs, generator)

    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        values, observed = split_observed(x, self.task)
        hidden, states = values.transpose(1, 2), list[Tensor]()  # [n, length, channels]
        for layer in range(self.config.layers):
            hidden, state = CELLS[self.cell].unroll(theta, f"layer{layer}", hidden, observed)
            states.append(state[0])
        if self.config.read == "mean":
            return mean_over_time(hidden.transpose(1, 2), observed)
        return states[-1] if self.config.read == "last" else torch.cat(states, -1)


@ARCHITECTURES.register("gru")
class GRU(Recurrent):
    """Gated recurrent units: Cho et al., 2014, https://arxiv.org/abs/1406.1078."""

    cell = "gru"


@ARCHITECTURES.register("lstm")
class LSTM(Recurrent):
    """Long short-term memory: Hochreiter and Schmidhuber, 1997, https://doi.org/10.1162/neco.1997.9.8.1735."""

    cell = "lstm"
