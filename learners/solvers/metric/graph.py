r"""Graph neural networks over an episode, whose edges are learned.

Garcia and Bruna, 2018, https://arxiv.org/abs/1711.04043, equations 2 to 6. The nodes of a graph are the support
examples, those without labels, and one query:

    x_i = (f(image_i), h(l_i)),    h one-hot, and uniform over the classes where the label is unknown
    A_ij = softmax_j MLP(|x_i - x_j|), j != i,    x <- (x, leaky_relu(norm([x, A x] W)))

in each block; the last one has no norm, and its outputs at the query are the classes' logits. The MLP has four layers
of 2, 2, 1 and 1 times ``width``, each with batch norm and leaky ReLU, and a block adds half of ``width`` to every node.

Each query has a graph of its own, so that none sees the others. Batch norm is over all graphs of a batch, over each
pair of nodes once (the pairs of a node with itself, which the softmax leaves out, do not count). With ``support`` it
has the statistics of graphs in which each support example is asked for again. Edges are symmetric, so that half are
made. The label's places limit the number of classes (``most_ways``), and their weights differ: classes that are
numbered otherwise are predicted alike only as far as training has taught it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Int
from metaloom.learners.episode import Episode, Support
from metaloom.learners.networks.base import Network, affine_parameters, linear_parameters
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.solvers.amortized import AmortizedSolver, Embedding, Outputs
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.label_width import MostWays, label_width, of_present, placed, uniform
from metaloom.learners.tensors import Tensors

LAYERS = (2, 2, 1, 1)  # widths of the edges' MLP, in units of ``width``
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"leaky_relu": F.leaky_relu_, "tanh": torch.tanh, "silu": F.silu}


@dataclass(frozen=True)
class GraphConfig:
    """The size of the network, and what its edges compare.

    Attributes:
        blocks: How many times the nodes see one another; the last time makes the outputs.
        width: Of the MLP that makes the edges; a block adds half of it to each node.
        distance: What it is given of two nodes: the absolute or the squared difference.
        activation: The function after each layer.
        most_ways: The most classes of a task, which the label of a node has places for; null: as many as in training.
    """

    blocks: Annotated[int, Int(1, 8)] = 3
    width: Annotated[int, Int(4, 256, log=True)] = 96
    distance: Literal["absolute", "squared"] = "absolute"
    activation: Literal["leaky_relu", "tanh", "silu"] = "leaky_relu"
    most_ways: MostWays = None


@SOLVERS.register("graph")
class Graph(AmortizedSolver):
    """A query's node in a graph of the support set, after some blocks of message passing."""

    config: GraphConfig
    learns = True
    needs_classes = True
    any_ways = False
    reads_support = frozenset({"mask", "unlabelled"})

    @property
    def places(self) -> int:
        """How many classes a label has places for; raises LearnerError if the task has more."""
        return label_width(self.config.most_ways, self.task)

    def has_batch_norm(self, network: Network | None) -> bool:
        return True

    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        config, inputs, own = self.config, math.prod(features) + self.places, Tensors()
        for block in range(config.blocks):
            name, widths = f"block{block}", [inputs, *(factor * config.width for factor in LAYERS)]
            for layer, (before, after) in enumerate(pairwise(widths)):
                own |= _linear(f"{name}.edge{layer}", before, after, generator)
                own |= affine_parameters(f"{name}.norm{layer}", after)
            own |= _linear(f"{name}.edge", config.width, 1, generator)
            if block + 1 < config.blocks:
                own |= _linear(f"{name}.node", 2 * inputs, config.width // 2, generator)
                own |= affine_parameters(f"{name}.norm", config.width // 2)
                inputs += config.width // 2
        return own | linear_parameters("last", 2 * inputs, self.places, generator)

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        run = self._prepared(phi, embed, support)
        labels = support.kept().y
        return lambda query_x: of_present(run(query_x)[0], labels, self.task.outputs)

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Return ``adjacency`` of the first query's graph."""
        _, edges = self._prepared(phi, embed, episode.support)(episode.query_x)
        return {"adjacency": torch.stack([one[0] for one in edges])}

    def _prepared(
        self, phi: Tensors, embed: Embedding, support: Support
    ) -> Callable[[Tensor], tuple[Tensor, list[Tensor]]]:
        """Return queries [n, *features] to their logits [n, places], and each block's edges [n, nodes, nodes]."""
        support = support.kept()
        labelled, unknown = len(support.x), support.unlabelled
        embed_both = embed.beside(support.x if unknown is None else torch.cat([support.x, unknown]))

        def run(query_x: Tensor) -> tuple[Tensor, list[Tensor]]:
            features, queries = embed_both(query_x)
            blank = uniform(support.y, self.places, features)
            known = placed(support.y, self.places, features)
            labels = torch.cat([known, blank.expand(len(features) - labelled, -1)])
            nodes = torch.cat([features, labels], 1)

            def pass_of(asked: Tensor, norm: Normalization) -> tuple[Tensor, list[Tensor]]:
                last = torch.cat([asked, blank.expand(asked.shape[0], -1)], 1)
                return self._passed(phi, torch.cat([nodes.expand(asked.shape[0], -1, -1), last[:, None]], 1), norm)

            norm = embed.own_norm(lambda first: pass_of(features[:labelled], first))
            return pass_of(queries, norm)

        return run

    def _passed(self, phi: Tensors, x: Tensor, norm: Normalization) -> tuple[Tensor, list[Tensor]]:
        """Run graphs [n, nodes, d], the query last: its logits [n, places], and each block's edges."""
        edges = []
        for block in range(self.config.blocks):
            name = f"block{block}"
            edges.append(self._edges(phi, name, x, norm))
            if block + 1 < self.config.blocks:
                made = F.linear(torch.cat([x, edges[-1] @ x], 2), phi[f"{name}.node.weight"])
                x = torch.cat([x, self._normalized(phi, f"{name}.norm", made, norm)], 2)
        seen = torch.cat([x[:, -1], (edges[-1][:, -1:] @ x)[:, 0]], 1)
        return F.linear(seen, phi["last.weight"], phi["last.bias"]), edges

    def _edges(self, phi: Tensors, name: str, x: Tensor, norm: Normalization) -> Tensor:
        """Return the weight that each node gives each other, of graphs [n, nodes, d]: [n, nodes, nodes]."""
        count = x.shape[1]
        rows, columns = torch.triu_indices(count, count, 1, device=x.device)
        made = x[:, rows] - x[:, columns]  # [n, pairs, d]
        made = made.abs() if self.config.distance == "absolute" else made.square()
        for layer in range(len(LAYERS)):
            made = F.linear(made, phi[f"{name}.edge{layer}.weight"])
            made = self._normalized(phi, f"{name}.norm{layer}", made, norm)
        scores = F.linear(made, phi[f"{name}.edge.weight"])[..., 0]  # [n, pairs]
        place = torch.zeros(count, count, dtype=torch.int64, device=x.device)
        place[rows, columns] = place[columns, rows] = torch.arange(len(rows), device=x.device)
        own = torch.eye(count, dtype=torch.bool, device=x.device)
        return torch.softmax(scores[:, place].masked_fill(own, -math.inf), -1)

    def _normalized(self, phi: Tensors, layer: str, made: Tensor, norm: Normalization) -> Tensor:
        flat = norm(layer, made.flatten(0, 1), phi[f"{layer}.weight"], phi[f"{layer}.bias"])
        return FUNCTIONS[self.config.activation](flat).view_as(made)


def _linear(name: str, inputs: int, outputs: int, generator: Generator) -> Tensors:
    """Draw a linear layer without a bias, which a norm or a softmax would remove."""
    drawn = linear_parameters(name, inputs, outputs, generator)
    return {f"{name}.weight": drawn[f"{name}.weight"]}
