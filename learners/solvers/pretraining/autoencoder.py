r"""What all autoencoders share: an example is corrupted, embedded, decoded, and compared with itself.

    h = f(corrupted(x)),   r = decoder(h)
    L = sum_i w_i (r_i - x_i)^2 / sum_i w_i        over all numbers of all examples

A kind of autoencoder says how examples are corrupted, and the weights w.
"""

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.networks.base import Network
from metaloom.learners.solvers.amortized import Embedding
from metaloom.learners.solvers.pretraining.base import PretrainingSolver, all_examples
from metaloom.learners.solvers.pretraining.decoders import Decoder, DecoderConfig
from metaloom.learners.tensors import Tensors

SHOWN = 8  # examples of an episode that are shown beside their reconstructions
SHOWN_SEED = 0  # of their corruption, so that two looks at one episode show the same


class Corrupted(NamedTuple):
    """Examples as the network sees them, and how much the reconstruction of each number counts.

    Attributes:
        examples: [n, *inputs].
        weights: At least 0, of the same shape.
    """

    examples: Tensor
    weights: Tensor


class Autoencoder(PretrainingSolver):
    """The body embeds corrupted examples; a decoder, which is dropped afterwards, reconstructs them."""

    config: DecoderConfig

    def __init__(self, config: DecoderConfig, task: TaskShape) -> None:
        super().__init__(config, task)
        self.decoder = Decoder(config, task.inputs)

    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        return self.decoder.parameters(features, generator)

    @abstractmethod
    def corruption(self, x: Tensor, generator: Generator) -> Tensors:
        """Return the random numbers that ``corrupted`` reads of examples x [n, *inputs]; on x's device."""

    @abstractmethod
    def corrupted(self, phi: Tensors, x: Tensor, noise: Tensors) -> Corrupted:
        """Corrupt examples x [n, *inputs] by the random numbers of ``corruption``."""

    def draw_loss(self, episode: Episode, generator: Generator) -> Tensors:
        return self.corruption(all_examples(episode), generator)

    def objective(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensor:
        x = all_examples(episode)
        given = self.corrupted(phi, x, episode.noise)
        return weighted_error(self.reconstructed(phi, embed, given.examples), x, given.weights)

    def reconstructed(self, phi: Tensors, embed: Embedding, x: Tensor) -> Tensor:
        """Embed and decode examples [n, *inputs]: [n, *inputs]."""
        shape = (x[0].numel(),) if embed.network is None else embed.network.feature_shape()
        return self.decoder(phi, embed(x), shape)

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Show the features with the class means, and some queries as they are, corrupted, and reconstructed."""
        x = episode.query_x[:SHOWN]
        noise = self.corruption(x, torch.Generator().manual_seed(SHOWN_SEED))
        given = self.corrupted(phi, x, noise)
        pictures = {
            "original": x,
            "corrupted": given.examples,
            "reconstruction": self.reconstructed(phi, embed, given.examples),
        }
        return super().inspect(phi, embed, episode) | pictures


def weighted_error(found: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """Return the mean squared error with weights, [], over tensors of equal shape; 0 where all weights are 0."""
    total = weights.sum()
    return (weights * (found - wanted).square()).sum() / torch.where(total > 0, total, torch.ones_like(total))
