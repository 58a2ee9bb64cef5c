r"""SNAIL: temporal convolutions and causal attention over the support pairs, and then one query.

Mishra, Rohaninejad, Chen and Abbeel, 2018, https://arxiv.org/abs/1707.03141, section 3 and figure 2. The sequence is
(f(x_1), y_1), ..., (f(x_n), y_n), (f(query), 0), and each block appends to what it is given:

    dense(R):   tanh(conv_f) * sigmoid(conv_g),  causal convolutions of size 2 and dilation R
    temporal:   dense(2), dense(4), ... until 2^i reaches over the sequence
    attention:  softmax(q k^T / sqrt(d)) v over the present and the past

in the order attention, temporal, attention, temporal, attention, linear. Its outputs at the query are the logits.

Nothing at the support examples depends on the query behind them, so that they are computed once for all queries, and a
query costs one step. The support set is a sequence by class, and in a class by the inputs' numbers, so that the order
in which it is given does not matter; how the classes are numbered does. Labels have a place a class, which limits the
ways (``most_ways``).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Bounds, Int
from metaloom.learners.episode import Episode, Support
from metaloom.learners.networks.base import Network, linear_parameters
from metaloom.learners.solvers.amortized import AmortizedSolver, Embedding, Outputs
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.label_width import MostWays, label_width, of_present, placed
from metaloom.learners.solvers.metric.full_context import canonical_order
from metaloom.learners.tensors import Tensors

KEYS = (0.5, 2.0, 4.0)  # the width of each attention's keys over ``width``; its values have half of that


class Sequences(NamedTuple):
    """The support examples' part [n, d], which all queries share, and the queries' last steps [queries, d]."""

    past: Tensor
    last: Tensor

    def beside(self, more: "Sequences") -> "Sequences":
        """Append features to both parts."""
        return Sequences(*(torch.cat(pair, 1) for pair in zip(self, more, strict=True)))


@dataclass(frozen=True)
class SnailConfig:
    """The size of the network.

    Attributes:
        width: Filters of each dense block; the attentions' keys are 1/2, 2 and 4 times, their values half of that.
        reach: The longest sequence over which the temporal convolutions reach: support examples and the query. The
            attention sees all of any sequence.
        most_ways: The most classes of a task, which labels have places for; null: as many as in training.
    """

    width: Annotated[int, Int(8, 512, log=True), Bounds(at_least=4)] = 128
    reach: Annotated[int, Int(2, 1024, log=True), Bounds(at_least=2)] = 32
    most_ways: MostWays = None


@SOLVERS.register("snail")
class Snail(AmortizedSolver):
    """The last output of a causal network over the support examples, their labels and a query."""

    config: SnailConfig
    learns = True
    needs_classes = True
    any_ways = False
    takes_features = False  # the order is that of the examples themselves
    reads_support = frozenset({"mask"})

    @property
    def places(self) -> int:
        """How many classes a label has places for; raises LearnerError if the task has more."""
        return label_width(self.config.most_ways, self.task)

    @property
    def dilations(self) -> list[int]:
        """The dilations of a temporal block."""
        return [2**power for power in range(1, math.ceil(math.log2(self.config.reach)) + 1)]

    def sizes(self, attention: int) -> tuple[int, int]:
        """Return the widths of an attention's keys and values."""
        keys = int(KEYS[attention] * self.config.width)
        return keys, keys // 2

    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        inputs, own = math.prod(features) + self.places, Tensors()
        for index in range(len(KEYS)):
            keys, values = self.sizes(index)
            for name, outputs in (("keys", keys), ("queries", keys), ("values", values)):
                own |= linear_parameters(f"attention{index}.{name}", inputs, outputs, generator)
            del own[f"attention{index}.keys.bias"]  # it moves all logits of a step alike, which the softmax removes
            inputs += values
            for dilation in self.dilations if index + 1 < len(KEYS) else ():
                for gate in ("filter", "gate"):  # the present and the past beside one another
                    name = f"temporal{index}.{dilation}.{gate}"
                    own |= linear_parameters(name, 2 * inputs, self.config.width, generator)
                inputs += self.config.width
        return own | linear_parameters("last", inputs, self.places, generator)

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        run = self._prepared(phi, embed, support)
        labels = support.kept().y
        return lambda query_x: of_present(run(query_x)[0], labels, self.task.outputs)

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Return ``attention``, the last block's, without a query's to itself."""
        given = episode.support
        _, weights = self._prepared(phi, embed, given)(episode.query_x)
        kept = torch.arange(len(given.y), device=given.y.device) if given.mask is None else given.mask.nonzero()[:, 0]
        shown = weights.new_zeros(len(weights), len(given.y))
        shown[:, kept[in_sequence(given.kept())]] = weights[:, :-1]
        return {"attention": shown}

    def _prepared(self, phi: Tensors, embed: Embedding, support: Support) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Return queries [n, *features] to their logits [n, places], and the last attention [n, support + 1]."""
        support = support.kept()
        order = in_sequence(support)
        embed_both, labels = embed.beside(support.x[order]), support.y[order]

        def run(query_x: Tensor) -> tuple[Tensor, Tensor]:
            features, queries = embed_both(query_x)
            past = torch.cat([features, placed(labels, self.places, features)], 1)
            last = torch.cat([queries, queries.new_zeros(queries.shape[0], self.places)], 1)
            at, weights = self._attended(phi, 0, Sequences(past, last))
            for index in range(1, len(KEYS)):
                at, weights = self._attended(phi, index, self._temporal(phi, index - 1, at))
            return F.linear(at.last, phi["last.weight"], phi["last.bias"]), weights

        return run

    def _temporal(self, phi: Tensors, index: int, at: Sequences) -> Sequences:
        for dilation in self.dilations:
            both = _with_past(at, dilation)
            name = f"temporal{index}.{dilation}"
            filters, gates = (_linear(phi, f"{name}.{part}", both) for part in ("filter", "gate"))
            made = (torch.tanh(one) * torch.sigmoid(gate) for one, gate in zip(filters, gates, strict=True))
            at = at.beside(Sequences(*made))
        return at

    def _attended(self, phi: Tensors, index: int, at: Sequences) -> tuple[Sequences, Tensor]:
        """Append what each step reads of the present and the past; also the queries' weights [queries, n + 1]."""
        keys, asked, values = (_linear(phi, f"attention{index}.{part}", at) for part in ("keys", "queries", "values"))
        scale, count = math.sqrt(keys.past.shape[1]), len(at.past)
        later = torch.ones(count, count, dtype=torch.bool, device=at.past.device).triu(1)
        within = torch.softmax((asked.past @ keys.past.T / scale).masked_fill(later, -math.inf), 1)
        own = (asked.last * keys.last).sum(1, keepdim=True)
        weights = torch.softmax(torch.cat([asked.last @ keys.past.T, own], 1) / scale, 1)
        read = weights[:, :-1] @ values.past + weights[:, -1:] * values.last
        return at.beside(Sequences(within @ values.past, read)), weights


def in_sequence(support: Support) -> Tensor:
    """Return the places [n] of the examples in the sequence: by class, and by the numbers of the inputs."""
    places = canonical_order(support.x)
    return places[torch.argsort(support.y[places], stable=True)]


def _linear(phi: Tensors, name: str, at: Sequences) -> Sequences:
    return Sequences(*(F.linear(x, phi[f"{name}.weight"], phi.get(f"{name}.bias")) for x in at))


def _with_past(at: Sequences, dilation: int) -> Sequences:
    """Put what stands ``dilation`` steps before beside each step; zeros where the sequence has not begun."""
    count = len(at.past)
    before = F.pad(at.past, (0, 0, dilation, 0))  # [dilation + n, d]; row t stands before step t
    last = before[count : count + 1].expand(at.last.shape[0], -1)
    return Sequences(torch.cat([at.past, before[:count]], 1), torch.cat([at.last, last], 1))
