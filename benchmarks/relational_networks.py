"""Relation networks, graph networks and SNAIL as their users write them, in torch's own modules."""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaloom.learners.episode import Episode

WIDTH = 64  # channels of Conv-4, and what it makes of 28x28 pixels


def blocks(inputs: int, pooled: list[bool]) -> nn.Sequential:
    """Return blocks of 3x3 convolution, batch norm and ReLU, and of 2x2 max pooling where it is asked for."""
    layers: list[nn.Module] = []
    for pool in pooled:
        layers += [nn.Conv2d(inputs, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pool else []
        inputs = WIDTH
    return nn.Sequential(*layers)


class Relational(nn.Module):
    """A network that reads a whole episode of one example a class."""

    @abstractmethod
    def forward(self, episode: Episode) -> Tensor:
        """Return the queries' logits [queries, ways]."""

    def loss(self, logits: Tensor, query_y: Tensor) -> Tensor:
        """Return the loss of an episode."""
        return F.cross_entropy(logits, query_y)


class Relation(Relational):
    """Sung et al., 2018: every query's maps on every class's, and a small network of each pair."""

    def __init__(self, *, squared: bool = True) -> None:
        super().__init__()
        self.squared = squared
        self.encoder = blocks(1, [True, True, False, False])
        self.comparator = blocks(2 * WIDTH, [True, True])
        self.scores = nn.Sequential(nn.Flatten(), nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, episode: Episode) -> Tensor:
        order = episode.support_y.argsort()
        maps = self.encoder(torch.cat([episode.support_x[order], episode.query_x]))
        classes, queries = maps[: len(order)], maps[len(order) :]
        pairs = torch.cat(
            [
                classes[None].expand(len(queries), -1, -1, -1, -1),
                queries[:, None].expand(-1, len(order), -1, -1, -1),
            ],
            2,
        )
        scores: Tensor = self.scores(self.comparator(pairs.flatten(0, 1)))
        return scores.view(len(queries), len(order))

    def loss(self, logits: Tensor, query_y: Tensor) -> Tensor:
        if not self.squared:
            return super().loss(logits, query_y)
        return F.mse_loss(torch.sigmoid(logits), F.one_hot(query_y, logits.shape[1]).to(logits))


class Layer(nn.Module):
    """A linear layer, batch norm over all but the last dimension, and leaky ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        made = self.linear(x)
        return F.leaky_relu(self.norm(made.flatten(0, -2))).view_as(made)


class Graph(Relational):
    """Garcia and Bruna, 2018: a graph for each query, of every pair of whose nodes an MLP makes an edge."""

    def __init__(self, ways: int = 5, width: int = 96, count: int = 3) -> None:
        super().__init__()
        self.ways, self.encoder = ways, nn.Sequential(blocks(1, [True] * 4), nn.Flatten())
        sizes = [WIDTH + ways + block * (width // 2) for block in range(count)]
        self.edges = nn.ModuleList(
            nn.Sequential(
                Layer(size, 2 * width), Layer(2 * width, 2 * width), Layer(2 * width, width), Layer(width, width)
            )
            for size in sizes
        )
        self.edge = nn.ModuleList(nn.Linear(width, 1, bias=False) for _ in sizes)
        self.nodes = nn.ModuleList(Layer(2 * size, width // 2) for size in sizes[:-1])
        self.last = nn.Linear(2 * sizes[-1], ways)

    def forward(self, episode: Episode) -> Tensor:
        count = len(episode.support_x)
        features = self.encoder(torch.cat([episode.support_x, episode.query_x]))
        known = torch.cat([features[:count], F.one_hot(episode.support_y, self.ways).to(features)], 1)
        blank = features.new_full((len(features) - count, self.ways), 1 / self.ways)
        asked = torch.cat([features[count:], blank], 1)
        x = torch.cat([known.expand(len(asked), -1, -1), asked[:, None]], 1)
        for index, edges in enumerate(self.edges):
            weights = self.weights(self.edge[index](edges(self.pairs(x))), x.shape[1])
            both = torch.cat([x, weights @ x], 2)
            if index < len(self.nodes):
                x = torch.cat([x, self.nodes[index](both)], 2)
        logits: Tensor = self.last(both[:, -1])
        return logits

    @staticmethod
    def pairs(x: Tensor) -> Tensor:
        """Return |x_i - x_j| of nodes that are not the same: [graphs, nodes * (nodes - 1), d]."""
        apart = ~torch.eye(x.shape[1], dtype=torch.bool)
        return (x[:, :, None] - x[:, None]).abs()[:, apart]

    @staticmethod
    def weights(scores: Tensor, nodes: int) -> Tensor:
        """Return the softmax over the others of each node: [graphs, nodes, nodes]."""
        found = scores.new_full((len(scores), nodes, nodes), -1e8)
        found[:, ~torch.eye(nodes, dtype=torch.bool)] = scores[..., 0]
        return torch.softmax(found, 2)


class Attention(nn.Module):
    """Mishra et al., 2018, figure 1b: causal attention, appended to what it reads."""

    def __init__(self, inputs: int, keys: int, values: int) -> None:
        super().__init__()
        self.keys, self.queries = nn.Linear(inputs, keys), nn.Linear(inputs, keys)
        self.values = nn.Linear(inputs, values)

    def forward(self, x: Tensor) -> Tensor:
        keys = self.keys(x)
        logits = self.queries(x) @ keys.transpose(1, 2) / keys.shape[2] ** 0.5
        seen = torch.ones(x.shape[1], x.shape[1]).tril().bool()
        weights = torch.softmax(logits.masked_fill(~seen, -torch.inf), 2)
        return torch.cat([x, weights @ self.values(x)], 2)


class Dense(nn.Module):
    """Their figure 1a: a gated causal convolution of size 2, appended to what it reads."""

    def __init__(self, inputs: int, filters: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.filter, self.gate = (nn.Conv1d(inputs, filters, 2, dilation=dilation) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x.transpose(1, 2), (self.dilation, 0))
        made = torch.tanh(self.filter(padded)) * torch.sigmoid(self.gate(padded))
        return torch.cat([x, made.transpose(1, 2)], 2)


class Snail(Relational):
    """Their figure 2b: the whole sequence of every query."""

    def __init__(self, ways: int = 5, filters: int = 128, dilations: tuple[int, ...] = (2, 4, 8)) -> None:
        super().__init__()
        self.ways, self.encoder = ways, nn.Sequential(blocks(1, [True] * 4), nn.Flatten())
        size, layers = WIDTH + ways, list[nn.Module]()
        for keys, values in ((64, 32), (256, 128), (512, 256)):
            layers.append(Attention(size, keys, values))
            size += values
            for dilation in dilations if values < 256 else ():
                layers.append(Dense(size, filters, dilation))
                size += filters
        self.layers, self.last = nn.Sequential(*layers), nn.Linear(size, ways)

    def forward(self, episode: Episode) -> Tensor:
        order = episode.support_y.argsort(stable=True)
        features = self.encoder(torch.cat([episode.support_x[order], episode.query_x]))
        count = len(order)
        known = torch.cat([features[:count], F.one_hot(episode.support_y[order], self.ways).to(features)], 1)
        asked = F.pad(features[count:], (0, self.ways))
        sequences = torch.cat([known.expand(len(asked), -1, -1), asked[:, None]], 1)
        logits: Tensor = self.last(self.layers(sequences)[:, -1])
        return logits
