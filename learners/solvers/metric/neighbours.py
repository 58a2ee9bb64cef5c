r"""The k nearest neighbours of a query vote for its class, by their inputs or by a learned embedding.

A vote has no gradient. The embedding is learned by the vote's smooth form, neighbourhood components analysis
(Goldberger et al., 2004, "Neighbourhood components analysis", equations 1 to 3), over the support set:

    P(y = c | x, S) = sum_i a(x, x_i) [y_i = c],    a(x, x_i) = softmax_i(-|f(x) - f(x_i)|^2 / temperature)

Of classes with equally many votes the one with the nearest neighbour wins; of equally near examples the one that stands
first is the nearer. A support set with fewer than k examples lets all of them vote.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from metaloom.learners.domains import Bounds, Int, Learned, Real
from metaloom.learners.episode import Episode, Support
from metaloom.learners.solvers.amortized import AmortizedSolver, Embedding, Judged, Outputs
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.metric.comparisons import kept, log_shares, similarities, spread
from metaloom.learners.tensors import Tensors, one_hot

TIE = 0.5  # less than one vote: what the nearest neighbour adds to its class
SMOOTHING = 0.1  # votes that every class has, so that none has the probability 0


@dataclass(frozen=True)
class VoteConfig:
    """Who votes.

    Attributes:
        k: How many neighbours; all of a support set that has fewer.
        metric: By which they are near.
    """

    k: Annotated[int, Int(1, 50, log=True), Bounds(at_least=1)] = 1
    metric: Literal["euclidean", "cosine"] = "euclidean"


@dataclass(frozen=True)
class NeighboursConfig(VoteConfig):
    """Who votes, and how smooth the vote is while the embedding is learned.

    Attributes:
        temperature: What the similarities are divided by before the softmax.
    """

    temperature: Annotated[float | Learned, Real(0.01, 100.0, log=True, positive=True), Bounds(above=0)] = 1.0


def votes(similar: Tensor, labels: Tensor, ways: int, k: int) -> Tensor:
    """Return the logarithm of each class's votes, ties broken.

    Args:
        similar: Of queries and support examples, [queries, n]; larger is nearer.
        labels: Of the support examples, int64 [n].
        ways: How many classes.
        k: How many neighbours vote.

    Returns:
        [queries, ways].
    """
    voters = min(k, len(labels))
    count = nearest_of = similar.new_zeros(similar.shape[0], ways)
    for place in range(voters):
        # not a sort: of equal values argmax takes the first, and a stable sort has no operator in ONNX
        nearest = similar.argmax(-1)
        member = one_hot(labels[nearest], ways, similar)
        count = count + member
        nearest_of = torch.maximum(nearest_of, member * (voters - place) / (voters + 1))
        similar = similar.masked_fill(one_hot(nearest, len(labels), similar).bool(), -torch.inf)
    return torch.log(count + TIE * nearest_of + SMOOTHING)


class Voting(AmortizedSolver):
    """The classes of a query's k nearest neighbours vote."""

    config: VoteConfig
    needs_classes = True
    reads_support = frozenset({"mask"})

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        there = kept(support)
        embed_both = embed.beside(there.x)

        def outputs(query_x: Tensor) -> Tensor:
            features, queries = embed_both(query_x)
            similar = similarities(self.config.metric, queries, features)
            return votes(similar, there.y, self.task.outputs, self.config.k)

        return outputs

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Show the features among which neighbours are found."""
        features, queries = embed.beside(kept(episode.support).x)(episode.query_x)
        return {"support": spread(features, episode.support), "queries": queries}


@SOLVERS.register("knn_inputs")
class InputNeighbours(Voting):
    """The vote of the k nearest by the inputs themselves, such as pixels; nothing is learned."""

    reads = frozenset()
    needs_whole = True


@SOLVERS.register("knn")
class Neighbours(Voting):
    """The vote of the k nearest by an embedding, which is learned by the vote's smooth form."""

    config: NeighboursConfig

    def loss(self, phi: Tensors, embed: Embedding, episode: Episode) -> Judged:
        """Return the cross entropy of the smooth vote, and the accuracy of the vote of the k nearest."""
        there = kept(episode.support)
        features, queries = embed.beside(there.x)(episode.query_x)
        similar = similarities(self.config.metric, queries, features)
        shares = log_shares(similar / self.knob(phi, "temperature"), there.y, self.task.outputs)
        found = votes(similar.detach(), there.y, self.task.outputs, self.config.k)
        kind = self.task.task_kind
        return Judged(kind.outer(shares, episode.query_y), kind.score(found, episode.query_y))
