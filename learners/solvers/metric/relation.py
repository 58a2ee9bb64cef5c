r"""Relation networks: a learned comparison of each query with each class.

Sung et al., 2018, https://arxiv.org/abs/1711.06025, equations 1 and 2 and section 3.4:

    r_ij = sigmoid(g(C(sum of f(x) over the support of class i, f(q_j)))),    F = mean (r_ij - 1(y_j = i))^2

f gives feature maps, C puts those of a class and of a query on top of one another, and g is two blocks of 3x3
convolution, batch norm, ReLU and 2x2 max pooling, then two layers of ``hidden`` and 1. Where f gives vectors, g is a
multi-layer perceptron. ``outputs`` are what the sigmoid is taken of, so that their softmax is the prediction.

A convolution of stacked maps is the sum of two: that of the classes and that of the queries are computed once each,
not once a pair. g's batch norm is over all pairs, and follows the mode of f's: with ``support`` it has the statistics
of the support examples' own pairs. A network without batch norm gets a g that normalizes each pair by itself.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Choice, Int
from metaloom.learners.episode import Episode, Support
from metaloom.learners.networks.base import Network, affine_parameters, conv_parameters, linear_parameters
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.convolutional import instance_norm
from metaloom.learners.networks.mlp import ACTIVATIONS
from metaloom.learners.networks.pooled_convolution import Convolution
from metaloom.learners.solvers.amortized import AmortizedSolver, Embedding, Judged, Outputs
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.label_width import of_present
from metaloom.learners.solvers.metric.prototypes import class_means
from metaloom.learners.tensors import Tensors

BLOCKS = 2


@dataclass(frozen=True)
class RelationConfig:
    """The comparison, and what it is trained for.

    Attributes:
        objective: The mean squared error of each relation from 0 or 1, or the cross entropy over an episode's classes.
        combine: How the features of a class's examples are put together: their sum, as in the paper, or their mean,
            which has one scale for all numbers of shots and is to be taken where these vary.
        channels: Of each block of the comparison; the width of its first layer, where features are vectors.
        hidden: The width of its last layer but one.
        activation: The function after each of its layers but the last.
    """

    objective: Literal["mse", "cross_entropy"] = "mse"
    combine: Literal["sum", "mean"] = "sum"
    channels: Annotated[int, Int(4, 256, log=True)] = 64
    hidden: Annotated[int, Int(1, 256, log=True)] = 8
    activation: Annotated[str, Choice(tuple(ACTIVATIONS))] = "relu"


@SOLVERS.register("relation")
class Relation(AmortizedSolver):
    """The outputs of a learned comparison of the query with the features of each class."""

    config: RelationConfig
    learns = True
    needs_classes = True
    reads_support = frozenset({"mask"})

    def has_batch_norm(self, network: Network | None) -> bool:
        return network is not None and network.has_batch_norm and len(network.feature_shape()) == 3

    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        channels, hidden = self.config.channels, self.config.hidden
        if len(features) == 3:
            depth, *sides = features
            own: Tensors = {}
            for block in range(BLOCKS):
                inputs = 2 * depth if block == 0 else channels
                own |= conv_parameters(f"conv{block}", inputs, channels, 3, generator)
                own |= affine_parameters(f"norm{block}", channels)
                sides = [side // 2 for side in sides] if min(sides) > 1 else sides
            inputs = channels * math.prod(sides)
        else:
            own, inputs = linear_parameters("first", 2 * math.prod(features), channels, generator), channels
        own |= linear_parameters("hidden", inputs, hidden, generator)
        return own | linear_parameters("score", hidden, 1, generator)

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        support = support.kept()
        scores = self._scores(phi, embed, support)
        return lambda query_x: of_present(scores(query_x), support.y, self.task.outputs)

    def _scores(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        """Return queries to their scores [queries, ways], of classes without an example too."""
        embed_both = embed.beside(support.x)

        def outputs(query_x: Tensor) -> Tensor:
            features, queries = embed_both(query_x)
            classes = class_means(features, support.y, self.task.outputs)
            if self.config.combine == "sum":
                classes = classes * F.one_hot(support.y, self.task.outputs).sum(0).to(classes).unsqueeze(-1)
            if "first.weight" in phi:
                return self._scored(phi, self._activation(_of_vectors(phi, classes, queries)), queries.shape[0])
            assert embed.network is not None
            shape = embed.network.feature_shape()
            classes, queries, own = (x.reshape(-1, *shape) for x in (classes, queries, features))
            if not self.has_batch_norm(embed.network):
                return self._of_maps(phi, classes, queries, None)
            norm = embed.own_norm(lambda first: self._of_maps(phi, classes, own, first))
            return self._of_maps(phi, classes, queries, norm)

        return outputs

    def loss(self, phi: Tensors, embed: Embedding, episode: Episode) -> Judged:
        outputs, kind = self.adapt(phi, embed, episode.support)(episode.query_x), self.task.task_kind
        accuracy = kind.score(outputs.detach(), episode.query_y)
        if self.config.objective == "cross_entropy":
            return Judged(kind.outer(outputs, episode.query_y), accuracy)
        wanted = F.one_hot(episode.query_y, outputs.shape[1]).to(outputs)
        return Judged((torch.sigmoid(outputs) - wanted).square().mean(), accuracy)

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Return ``relation``, each query's relation to each class."""
        return {"relation": torch.sigmoid(self.adapt(phi, embed, episode.support)(episode.query_x))}

    def _activation(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.config.activation](x)

    def _of_maps(self, phi: Tensors, classes: Tensor, queries: Tensor, norm: Normalization | None) -> Tensor:
        """Compare maps [ways, channels, height, width] with maps [n, channels, height, width]: [n, ways]."""
        if norm is not None:
            classes, queries = norm.arrange(classes), norm.arrange(queries)
        first, last = phi["conv0.weight"].chunk(2, dim=1)
        of_classes, of_queries = F.conv2d(classes, first, padding=1), F.conv2d(queries, last, padding=1)
        made: Tensor | Convolution = (of_queries[:, None] + of_classes).flatten(0, 1)  # [n * ways, channels, ...]
        x = queries
        for block in range(BLOCKS):
            pool, (gamma, beta) = min(x.shape[2:]) > 1, (phi[f"norm{block}.{name}"] for name in ("weight", "bias"))
            x = _normalized(f"norm{block}", made, gamma, beta, norm, pool=pool)
            x = self._activation(x)
            if block + 1 < BLOCKS:
                made = Convolution(x, phi[f"conv{block + 1}.weight"])
        return self._scored(phi, x.flatten(1), queries.shape[0])

    def _scored(self, phi: Tensors, x: Tensor, queries: int) -> Tensor:
        """Map the pairs' features [queries * ways, d] to scores [queries, ways]."""
        hidden = self._activation(F.linear(x, phi["hidden.weight"], phi["hidden.bias"]))
        return F.linear(hidden, phi["score.weight"], phi["score.bias"]).view(queries, self.task.outputs)


def _of_vectors(phi: Tensors, classes: Tensor, queries: Tensor) -> Tensor:
    """Return the first layer of vectors [ways, d] beside vectors [n, d]: [n * ways, channels]."""
    first, last = phi["first.weight"].chunk(2, dim=1)
    return (F.linear(queries, last, phi["first.bias"])[:, None] + F.linear(classes, first)).flatten(0, 1)


def _normalized(
    layer: str, made: Tensor | Convolution, gamma: Tensor, beta: Tensor, norm: Normalization | None, *, pool: bool
) -> Tensor:
    if norm is not None:
        return norm(layer, made, gamma, beta, pool=pool)
    x = instance_norm(made.outputs() if isinstance(made, Convolution) else made, gamma, beta)
    return F.max_pool2d(x, 2) if pool else x
