"""Metric learners as their users write them, in torch's own modules: what ours are compared with."""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 64  # what Conv-4-64 makes of 28x28 pixels


class Comparing(nn.Module):
    """An embedding, and what is made of the support set's features and the queries'."""

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, support_x: Tensor, query_x: Tensor) -> tuple[Tensor, Tensor]:
        """Embed both in one batch: [n, WIDTH] and [queries, WIDTH]."""
        features = self.embedding(torch.cat([support_x, query_x]))
        return features[: len(support_x)], features[len(support_x) :]

    @abstractmethod
    def scores(self, support: Tensor, queries: Tensor) -> Tensor:
        """Return how similar the features of each query and each support example are: [queries, n]."""

    def loss(self, support: Tensor, queries: Tensor, support_y: Tensor, query_y: Tensor) -> Tensor:
        """Return the loss of an episode's features: here, of the attention to the labels."""
        attention = torch.softmax(self.scores(support, queries), -1)
        probabilities = attention @ F.one_hot(support_y).to(attention)
        return F.nll_loss(torch.log(probabilities), query_y)


class Matching(Comparing):
    """Vinyals et al., 2016: attention by the cosine, times a scale."""

    def __init__(self, embedding: nn.Module, scale: float = 10.0) -> None:
        super().__init__(embedding)
        self.scale = scale

    def scores(self, support: Tensor, queries: Tensor) -> Tensor:
        return self.scale * F.cosine_similarity(queries[:, None], support[None], dim=-1)


class FullContext(Matching):
    """The same with full context embeddings by torch's own LSTMs, which read the support set as it is given."""

    def __init__(self, embedding: nn.Module, scale: float = 10.0, steps: int = 5) -> None:
        super().__init__(embedding, scale)
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

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__(embedding)
        self.importance = nn.Parameter(torch.empty(WIDTH).uniform_(-2 / WIDTH**0.5, 0))
        self.bias = nn.Parameter(torch.zeros(()))

    def scores(self, support: Tensor, queries: Tensor) -> Tensor:
        return (queries[:, None] - support[None]).abs() @ self.importance + self.bias

    def loss(self, support: Tensor, queries: Tensor, support_y: Tensor, query_y: Tensor) -> Tensor:
        logits, same = self.scores(support, queries), query_y[:, None] == support_y[None]
        losses = F.binary_cross_entropy_with_logits(logits, same.to(logits), reduction="none")
        return (losses[same].mean() + losses[~same].mean()) / 2


class Neighbours(Comparing):
    """Goldberger et al., 2004: attention by squared distances."""

    def scores(self, support: Tensor, queries: Tensor) -> Tensor:
        return -(queries[:, None] - support[None]).square().sum(-1)
