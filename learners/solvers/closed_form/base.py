"""What linear heads share that are fitted to the support set's features, whatever their loss."""

from abc import abstractmethod

import torch
from torch import Tensor

from metaloom.learners.episode import Episode, Support
from metaloom.learners.solvers.amortized import AmortizedSolver, Embedding, Outputs
from metaloom.learners.tensors import Tensors


class FittedHead(AmortizedSolver):
    """A linear head that is fitted to the features of the support set; padding is left out before the network."""

    reads_support = frozenset({"mask"})

    @abstractmethod
    def weights(self, phi: Tensors, features: Tensor, targets: Tensor) -> Tensor:
        """Fit the head: features [n, d] and targets [n] or [n, outputs] to weights [d, outputs], differentiable."""

    @abstractmethod
    def read(self, phi: Tensors, scores: Tensor) -> Tensor:
        """Turn scores [queries, outputs] into outputs."""

    def extended(self, features: Tensor) -> Tensor:
        """Return the features [n, d] as the head takes them, such as with a column for its intercept."""
        return features

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        x, targets = present(support)
        if embed.together:
            both = embed.beside(x)

            def in_one_batch(query_x: Tensor) -> Tensor:
                features, queries = map(self.extended, both(query_x))
                return self.read(phi, queries @ self.weights(phi, features, targets))

            return in_one_batch
        weights = self.weights(phi, self.extended(embed(x)), targets)
        statistics = embed.statistics
        return lambda query_x: self.read(phi, self.extended(embed(query_x, statistics)) @ weights)

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Show the features, and the outputs of the query set where they are of classes."""
        features, queries = embed.beside(episode.support_x)(episode.query_x)
        shown = {"support": features, "queries": queries}
        if self.task.task_kind.has_classes:
            shown["relation"] = self.adapt(phi, embed, episode.support)(episode.query_x)
        return shown


def present(support: Support) -> tuple[Tensor, Tensor]:
    """Return the support examples that are there, and their targets."""
    if support.mask is None:
        return support.x, support.y
    kept = support.mask.nonzero().squeeze(-1)
    return support.x.index_select(0, kept), support.y.index_select(0, kept)


def with_ones(features: Tensor) -> Tensor:
    """Append a column of ones to features [n, d]."""
    return torch.cat([features, features.new_ones(len(features), 1)], -1)
