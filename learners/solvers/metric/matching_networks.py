r"""Matching networks: Vinyals et al., 2016, https://arxiv.org/abs/1606.04080, section 2.1.1.

    P(y = c | x, S) = sum_i a(x, x_i) [y_i = c],    a(x, x_i) = softmax_i(s cos(f(x), f(x_i)))

s is 1 in the paper. A cosine is between -1 and 1, so that its softmax over 20 examples is nearly flat: here s is 10
over ``temperature``, as for ``prototypes`` with cosine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from metaloom.learners.domains import Bounds, Learned, Real
from metaloom.learners.episode import Episode, Support
from metaloom.learners.solvers.amortized import AmortizedSolver, Embedding, Outputs
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.metric.comparisons import COSINE_SCALE, cosines, kept, log_shares, spread
from metaloom.learners.tensors import Tensors

# the support set's features [n, d] to the queries' [queries, d] to both as they are compared, of the same shapes
Comparison = Callable[[Tensor], Callable[[Tensor], tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class MatchingNetworksConfig:
    """How sharp the attention to the support set is.

    Attributes:
        temperature: What 10 times the cosine is divided by before the softmax; 10 is the paper's.
    """

    temperature: Annotated[float | Learned, Real(0.01, 100.0, log=True, positive=True), Bounds(above=0)] = 1.0


@SOLVERS.register("matching_networks")
class MatchingNetworks(AmortizedSolver):
    """A query's class is the sum of the support labels, by a softmax over cosines."""

    config: MatchingNetworksConfig
    needs_classes = True
    reads_support = frozenset({"mask"})

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        there = kept(support)
        compare = self.comparison(phi, there)

        def fit(features: Tensor) -> Outputs:
            of_queries = compare(features)
            return lambda queries: log_shares(self.logits(phi, *of_queries(queries)), there.y, self.task.outputs)

        return embed.fitted(there.x, fit)

    def comparison(self, phi: Tensors, support: Support) -> Comparison:
        """Return what makes of the embedded examples those that are compared: here, these themselves."""
        return lambda features: lambda queries: (features, queries)

    def logits(self, phi: Tensors, features: Tensor, queries: Tensor) -> Tensor:
        """Return the logits [queries, n] of the attention that queries [queries, d] pay to features [n, d]."""
        return COSINE_SCALE * cosines(queries, features) / self.knob(phi, "temperature")

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Show the attention, 0 for examples that fill up the support set, and the features that it compares."""
        given = episode.support
        there = kept(given)
        embedded, embedded_queries = embed.beside(there.x)(episode.query_x)
        features, queries = self.comparison(phi, there)(embedded)(embedded_queries)
        attention = torch.softmax(self.logits(phi, features, queries), -1)
        return {"attention": spread(attention.T, given).T, "support": spread(features, given), "queries": queries}
