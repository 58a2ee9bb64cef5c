"""What the transductive heads share: they see the features of an episode at once, and return scores of its queries."""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.episode import Episode, Support
from metaloom.learners.solvers.amortized import AmortizedSolver, Embedding, Outputs
from metaloom.learners.solvers.base import TRANSDUCTIVE
from metaloom.learners.solvers.transductive.preparing import class_means
from metaloom.learners.tensors import Tensors


class TransductiveHead(AmortizedSolver):
    """A head over frozen or learned features, in which the queries of an episode help to classify one another.

    Its functions are batched over episodes: a leading dimension of 1 here.
    """

    setting = TRANSDUCTIVE
    needs_classes = True
    reads_support = frozenset({"mask"})

    @abstractmethod
    def scores(self, phi: Tensors, support: Tensor, members: Tensor, queries: Tensor) -> Tensor:
        """Return the queries' scores [e, q, ways], whose softmax are their probabilities.

        Args:
            phi: The solver's own part of phi.
            support: Features of the support set [e, s, d].
            members: Its labels as one-hot rows [e, s, ways].
            queries: Features of the queries [e, q, d].
        """

    def edges(self, phi: Tensors, support: Tensor, queries: Tensor) -> Tensor | None:
        """Return the graph that it draws over support and queries [e, s + q, s + q]; None if it draws none."""
        return None

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        given = without_padding(support)
        both = embed.beside(given.x)

        def outputs(query_x: Tensor) -> Tensor:
            features, queries = both(query_x)
            return self.scores(phi, features[None], self._members(given, features)[None], queries[None])[0]

        return outputs

    def _members(self, support: Support, features: Tensor) -> Tensor:
        return F.one_hot(support.y, self.task.outputs).to(features.dtype)

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Show the features, the mean of each class over all examples by their final shares, and the graph."""
        given = without_padding(episode.support)
        features, queries = embed.beside(given.x)(episode.query_x)
        members = self._members(given, features)
        shares = torch.softmax(self.scores(phi, features[None], members[None], queries[None]), -1)
        everything, all_shares = torch.cat([features, queries]), torch.cat([members, shares[0]])
        means = class_means(everything[None], all_shares[None])[0]
        edges = self.edges(phi, features[None], queries[None])
        shown = {"support": features, "queries": queries, "prototypes": means}
        return shown if edges is None else shown | {"adjacency": edges}


def without_padding(support: Support) -> Support:
    """Leave out the examples that fill up an episode: to a graph or a centre they are not neutral."""
    if support.mask is None:
        return support
    return Support(support.x[support.mask], support.y[support.mask], unlabelled=support.unlabelled)
