r"""What all autoencoders share: an example is corrupted, embedded, decoded, and compared with itself.

    h = f(corrupted(x)),   r = decoder(h)
    L = sum_i w_i (r_i - x_i)^2 / sum_i w_i        over all numbers of all examples

A kind of autoencoder says how examples are corrupted, and the weights w. Of series whose last channel says what was
observed (``TaskShape.observed``) that channel is given as it is, and what was not observed does not count.
"""

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import Network
from metaloom.learners.networks.tokens import token_count
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
        hidden: Which numbers are hidden, bool of the same shape; None where none is. A hidden step of a series whose
            last channel says so is one that was not observed.
    """

    examples: Tensor
    weights: Tensor
    hidden: Tensor | None = None


class Autoencoder(PretrainingSolver):
    """The body embeds corrupted examples; a decoder, which is dropped afterwards, reconstructs them."""

    config: DecoderConfig

    def __init__(self, config: DecoderConfig, task: TaskShape) -> None:
        super().__init__(config, task)
        if token_count(task):
            raise LearnerError(
                f"learner.prediction: {self.name} reconstructs numbers, and this task's examples are the tokens of "
                "text; use language_model"
            )
        self.decoder = Decoder(config, task.inputs)

    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        return self.decoder.parameters(features, generator)

    @abstractmethod
    def corruption(self, x: Tensor, generator: Generator) -> Tensors:
        """Return the random numbers that ``corrupted`` reads of examples x [n, ...]; on x's device."""

    @abstractmethod
    def corrupted(self, phi: Tensors, x: Tensor, noise: Tensors) -> Corrupted:
        """Corrupt examples x [n, ...] by the random numbers of ``corruption``; without what says what was observed."""

    def draw_loss(self, episode: Episode, generator: Generator) -> Tensors:
        return self.corruption(self.values(all_examples(episode)), generator)

    def values(self, x: Tensor) -> Tensor:
        """Return examples [n, *inputs] without the channel that says what was observed, where there is one."""
        return x[:, :-1] if self.task.observed else x

    def seen(self, phi: Tensors, x: Tensor, noise: Tensors) -> Corrupted:
        """Return what the network sees of examples x [n, *inputs], of which the observed numbers alone count."""
        given = self.corrupted(phi, self.values(x), noise)
        if not self.task.observed:
            return given
        there = x[:, -1:] > 0.5
        left = there if given.hidden is None else there & ~given.hidden[:, :1]
        examples = torch.cat([given.examples * left, left.to(x.dtype)], 1)
        return Corrupted(examples, torch.cat([given.weights * there, torch.zeros_like(x[:, -1:])], 1))

    def objective(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensor:
        x = all_examples(episode)
        given = self.seen(phi, x, episode.noise)
        return weighted_error(self.reconstructed(phi, embed, given.examples), x, given.weights)

    def reconstructed(self, phi: Tensors, embed: Embedding, x: Tensor) -> Tensor:
        """Embed and decode examples [n, *inputs]: [n, *inputs]."""
        shape = (x[0].numel(),) if embed.network is None else embed.network.feature_shape()
        return self.decoder(phi, embed(x), shape)

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Show the features with the class means, and some queries as they are, corrupted, and reconstructed."""
        x = episode.query_x[:SHOWN]
        noise = self.corruption(self.values(x), torch.Generator().manual_seed(SHOWN_SEED))
        given = self.seen(phi, x, noise)
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
