r"""TimeNet: a recurrent encoder and decoder, which reconstructs a series backwards from the encoder's last state.

Malhotra, TV, Vig, Agarwal and Shroff, 2017, https://arxiv.org/abs/1706.08838, section 3:

    z      = encoder(x_1 .. x_T)                          the body's features; the paper's: the states of all layers
    s_T+1  = z,   s_t = cell(x_{t+1}, s_{t+1}),   x'_t = W s_t + b      for t = T .. 1, with x_{T+1} = 0
    L      = mean over all observed steps of (x'_t - x_t)^2

While training, the decoder reads the true value after the one that it gives (``reads: values``). With ``reads:
nothing`` it reads zeros, so that the features alone must tell the series. Any network's body is an encoder; the paper's
is ``{kind: gru, layers: 3, width: 60, read: states}``, with dropout between its layers, which is left out here. A step
that was not observed leaves the decoder's state as it is, so that the loss does not depend on padding. Cost: two
recurrent passes forward and back, and one forward.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Int
from metaloom.learners.episode import Episode
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import Network, linear_parameters
from metaloom.learners.networks.series.cells import CELLS, State
from metaloom.learners.networks.series.observed import observed_length, split_observed
from metaloom.learners.solvers.amortized import Embedding
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.pretraining.autoencoder import SHOWN, weighted_error
from metaloom.learners.solvers.pretraining.base import PretrainingConfig, all_examples
from metaloom.learners.solvers.pretraining.series import SeriesPretraining
from metaloom.learners.tensors import Tensors

START, LAYER, OUTPUT = "start", "decoder", "output"


@dataclass(frozen=True)
class TimeNetConfig(PretrainingConfig):
    """The decoder, which is dropped when the network is handed on.

    Attributes:
        cell: The kind of recurrent cell.
        layers: Recurrent layers.
        width: Hidden values of a layer; a linear map of the features gives its first state. Null takes the features
            themselves as the first state, as the paper does, equal parts of them for each layer.
        reads: What the decoder reads at each step: the true `values` of the step after the one that it gives, or
            `nothing`.
    """

    cell: Literal["gru", "lstm"] = "gru"
    layers: Annotated[int, Int(1, 4)] = 1
    width: Annotated[int | None, Int(4, 256, log=True)] = None
    reads: Literal["values", "nothing"] = "values"


@SOLVERS.register("time_net")
class TimeNet(SeriesPretraining):
    """Reconstructs series backwards from the features of the body."""

    config: TimeNetConfig

    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        """Draw the decoder: its first state, its layers, and the map from the top layer to a step's values."""
        config, total = self.config, math.prod(features)
        if config.width is None and total % config.layers:
            raise LearnerError(
                f"learner.prediction.layers: {total} features do not divide among {config.layers} layers; set "
                "learner.prediction.width, or give every layer of the network as many (read: states)"
            )
        width = config.width or total // config.layers
        channels = self.task.inputs[0] - int(self.task.observed)
        drawn = {} if config.width is None else linear_parameters(START, total, width * config.layers, generator)
        for layer in range(config.layers):
            inputs = width if layer else channels
            drawn |= CELLS[config.cell].parameters(f"{LAYER}{layer}", inputs, width, generator)
        return drawn | linear_parameters(OUTPUT, width, channels, generator)

    def objective(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensor:
        x = all_examples(episode)
        values, observed = split_observed(x, self.task)
        weights = torch.ones_like(values) if observed is None else observed[:, None].to(values).expand_as(values)
        return weighted_error(self.reconstructed(phi, embed, x), values, weights)

    def reconstructed(self, phi: Tensors, embed: Embedding, x: Tensor) -> Tensor:
        """Embed series [n, channels, length] and reconstruct their values [n, channels, length], last step first."""
        values, observed = split_observed(x, self.task)
        backwards = values.flip(-1).transpose(1, 2)  # [n, length, channels]
        seen = None if observed is None else observed.flip(-1)
        if self.config.reads == "values":
            hidden = torch.cat([torch.zeros_like(backwards[:, :1]), backwards[:, :-1]], 1)
        else:
            hidden = torch.zeros_like(backwards)
        for layer, state in enumerate(self._first_states(phi, embed(x))):
            hidden, _ = CELLS[self.config.cell].unroll(phi, f"{LAYER}{layer}", hidden, seen, state)
        found = F.linear(hidden, phi[f"{OUTPUT}.weight"], phi[f"{OUTPUT}.bias"])
        return found.transpose(1, 2).flip(-1)

    def _first_states(self, phi: Tensors, features: Tensor) -> list[State]:
        """Return the state of each layer before the decoder's first step; the cell of an LSTM begins at 0."""
        if self.config.width is not None:
            features = F.linear(features, phi[f"{START}.weight"], phi[f"{START}.bias"]).tanh()
        parts = features.chunk(self.config.layers, -1)
        rest = CELLS[self.config.cell].tensors - 1
        return [(part, *(torch.zeros_like(part) for _ in range(rest))) for part in parts]

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Show the features with the class means, and some queries beside their reconstructions."""
        x = episode.query_x[:SHOWN]
        if embed.network is not None and embed.network.any_length:
            x = x[..., : observed_length(x, self.task)]
        values, observed = split_observed(x, self.task)
        found = self.reconstructed(phi, embed, x)
        if observed is not None:
            found = torch.where(observed[:, None], found, torch.zeros_like(found))
        return super().inspect(phi, embed, episode) | {"original": values, "reconstruction": found}
