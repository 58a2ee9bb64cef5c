r"""Matching networks with full context embeddings: Vinyals et al., 2016, https://arxiv.org/abs/1606.04080, appendix A.

Each support example is embedded in the context of the others, by an LSTM in both directions:

    g(x_i, S) = h>_i + h<_i + g'(x_i),    h>_i, c>_i = LSTM>(g'(x_i), h>_i-1, c>_i-1),    h< likewise from i + 1

and a query in the context of the support set, by K steps of an LSTM that reads it:

    h^_k, c_k = LSTM(f'(x), [h_k-1, r_k-1], c_k-1),    h_k = h^_k + f'(x),    f(x, S) = h_K
    r_k = sum_i softmax_i(h_k . g(x_i)) g(x_i)

h_0, r_0 and c_0 are 0. The classes then follow by the cosine of f and g, as in ``matching_networks``.

An LSTM depends on the order of what it reads, and a support set has none. So by default it reads the examples in the
lexicographic order of their inputs: neither the order in which they are given nor the numbers of the classes then
matter. ``order: given`` reads them as they come, as the paper's does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Generator, Tensor

from metaloom.learners.domains import Int
from metaloom.learners.episode import Support
from metaloom.learners.knowledge.update_rules.learned_optimizers import Memory, lstm, lstm_parameters
from metaloom.learners.networks.base import Network
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.metric.matching_networks import Comparison, MatchingNetworks, MatchingNetworksConfig
from metaloom.learners.tensors import Tensors

FORWARD, BACKWARD, READER = "forward", "backward", "reader"


@dataclass(frozen=True)
class FullContextConfig(MatchingNetworksConfig):
    """How the context is read.

    Attributes:
        read_steps: K, how often a query reads the support set.
        order: In which order the LSTM passes over the support set: that of the examples' inputs, whichever way they are
            given; or as they are given.
    """

    read_steps: Annotated[int, Int(1, 20)] = 5
    order: Literal["canonical", "given"] = "canonical"


def canonical_order(x: Tensor) -> Tensor:
    """Return the places of examples [n, *features] in the lexicographic order of their inputs: int64 [n]."""
    ranks: Tensor = torch.unique(x.flatten(1), dim=0, return_inverse=True)[1]
    return ranks.argsort(stable=True)  # equal examples are embedded alike, whichever comes first


@SOLVERS.register("full_context")
class FullContext(MatchingNetworks):
    """Matching networks whose embeddings of support examples and queries depend on the whole support set."""

    config: FullContextConfig
    learns = True
    takes_features = False  # the order is that of the examples themselves

    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        """Draw three LSTMs as wide as the features, whatever the number of classes."""
        width = torch.Size(features).numel()
        forward, backward = (lstm_parameters(name, width, width, generator) for name in (FORWARD, BACKWARD))
        return forward | backward | lstm_parameters(READER, 2 * width, width, generator)

    def comparison(self, phi: Tensors, support: Support) -> Comparison:
        places = canonical_order(support.x) if self.config.order == "canonical" else None

        def in_support(features: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
            context = in_context(phi, features, places)
            return lambda queries: (context, reading(phi, queries, context, self.config.read_steps))

        return in_support


def in_context(phi: Tensors, features: Tensor, places: Tensor | None) -> Tensor:
    """Return g(x_i, S) of the support features [n, d], which the LSTMs read in the order of ``places`` [n]: [n, d]."""
    ordered = features if places is None else features[places]
    both = passed_over(phi, FORWARD, ordered) + passed_over(phi, BACKWARD, ordered.flip(0)).flip(0)
    return features + (both if places is None else both[places.argsort()])


def passed_over(phi: Tensors, name: str, features: Tensor) -> Tensor:
    """Return the hidden states of an LSTM that reads [n, d] one row after another: [n, d]."""
    memory, states = blank(features[:1]), []
    for row in features.unsqueeze(1):
        memory = lstm(phi, name, row, memory)
        states.append(memory.hidden)
    return torch.cat(states)


def reading(phi: Tensors, queries: Tensor, context: Tensor, steps: int) -> Tensor:
    """Return f(x, S) of the query features [queries, d], after some steps of reading the context [n, d]."""
    memory, read = blank(queries), torch.zeros_like(queries)
    for _ in range(steps):
        found = lstm(phi, READER, torch.cat([queries, read], -1), memory)
        memory = Memory(found.hidden + queries, found.cell)
        read = torch.softmax(memory.hidden @ context.T, -1) @ context
    return memory.hidden


def blank(features: Tensor) -> Memory:
    """Return an LSTM's memory before it has read anything, of the shape of the features [n, d]."""
    return Memory(torch.zeros_like(features), torch.zeros_like(features))
