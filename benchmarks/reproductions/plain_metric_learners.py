"""Matching and siamese networks in plain torch, of ours only the data: the controls of M1 and M3."""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.reproductions.harness import TEST_EPISODES
from benchmarks.reproductions.written_out import Scores, conv4
from metaloom.workers.data.base import TaskSource

WIDTH = 64  # what Conv-4-64 makes of 28x28 pixels


class Comparing(nn.Module):
    """An embedding, and what is made of the support set's features and the queries'."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = conv4()

    def both(self, support_x: Tensor, query_x: Tensor) -> tuple[Tensor, Tensor]:
        """Embed both in one batch."""
        features = self.embedding(torch.cat([support_x, query_x]))
        return features[: len(support_x)], features[len(support_x) :]

    @abstractmethod
    def loss(self, support: Tensor, queries: Tensor, support_y: Tensor, query_y: Tensor) -> Tensor:
        """Return the loss of an episode's features."""

    @abstractmethod
    def scores(self, support: Tensor, queries: Tensor) -> Tensor:
        """Return how similar each query is to each support example, one a class: [queries, n]."""


class Matching(Comparing):
    """Vinyals et al., 2016: attention by the cosine, times a scale."""

    def __init__(self, scale: float = 10.0) -> None:
        super().__init__()
        self.scale = scale

    def scores(self, support: Tensor, queries: Tensor) -> Tensor:
        return self.scale * F.cosine_similarity(queries[:, None], support[None], dim=-1)

    def loss(self, support: Tensor, queries: Tensor, support_y: Tensor, query_y: Tensor) -> Tensor:
        attention = torch.softmax(self.scores(support, queries), -1)
        probabilities = attention @ F.one_hot(support_y).to(attention)
        return F.nll_loss(torch.log(probabilities), query_y)


class FullContext(Matching):
    """The same with full context embeddings by torch's own LSTMs, which read the support set as it is given."""

    def __init__(self, scale: float = 10.0, steps: int = 5) -> None:
        super().__init__(scale)
        self.steps = steps
        self.context = nn.LSTM(WIDTH, WIDTH, bidirectional=True)
        self.reader = nn.LSTMCell(2 * WIDTH, WIDTH)

    def scores(self, support: Tensor, queries: Tensor) -> Tensor:
        hidden = self.context(support[:, None])[0][:, 0]
        context = support + hidden[:, :WIDTH] + hidden[:, WIDTH:]
        state, cell, read = torch.zeros_like(queries), torch.zeros_like(queries), torch.zeros_like(queries)
        for _ in range(self.steps):
            state, cell = self.reader(torch.cat([queries, read], 1), (state, cell))
            state = state + queries
            read = torch.softmax(state @ context.T, -1) @ context
        return super().scores(context, state)


class Pairs(Comparing):
    """Koch et al., 2015: whether two examples are of one class, by a weighted L1 distance."""

    def __init__(self) -> None:
        super().__init__()
        self.importance = nn.Parameter(torch.empty(WIDTH).uniform_(-2 / WIDTH**0.5, 0))
        self.bias = nn.Parameter(torch.zeros(()))

    def scores(self, support: Tensor, queries: Tensor) -> Tensor:
        return (queries[:, None] - support[None]).abs() @ self.importance + self.bias

    def loss(self, support: Tensor, queries: Tensor, support_y: Tensor, query_y: Tensor) -> Tensor:
        logits, same = self.scores(support, queries), query_y[:, None] == support_y[None]
        losses = F.binary_cross_entropy_with_logits(logits, same.float(), reduction="none")
        return (losses[same].mean() + losses[~same].mean()) / 2


def trained(network: Comparing, training: TaskSource, episodes: int) -> Comparing:
    """Train a network on so many episodes, Adam 1e-3."""
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for index in range(episodes):
        episode = training.episode("train", index).episode
        features = network.train().both(episode.support_x, episode.query_x)
        loss = network.loss(*features, episode.support_y, episode.query_y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


@torch.no_grad()
def tested(network: Comparing, testing: TaskSource) -> Scores:
    """Return the accuracy on each 1-shot test episode."""
    scores = []
    for index in range(TEST_EPISODES):
        episode = testing.episode("test", index).episode
        features = network.eval().both(episode.support_x, episode.query_x)
        nearest = network.scores(*features).argmax(1)
        scores.append(float((episode.support_y[nearest] == episode.query_y).double().mean()))
    return tuple(scores)
