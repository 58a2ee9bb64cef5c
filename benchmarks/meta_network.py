"""A meta network as its users write it, in torch's own modules: what ours is compared with."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 64  # what Conv-4-64 makes of 28x28 pixels
P = 7.0  # gradients below e^-7 count as small
FAST = 0.1  # times the fast weights
SCALE = 10.0  # times the cosines


def preprocessed(slope: Tensor) -> Tensor:
    """Return the size and the sign of each coordinate of a gradient (Andrychowicz et al., 2016): [coordinates, 2]."""
    flat = slope.flatten()
    small = torch.exp(torch.tensor(-P))
    size = flat.abs().clamp_min(small).log() / P
    return torch.stack([size, (flat / small).clamp(-1, 1)], 1)


class MetaNetwork(nn.Module):
    """Munkhdalai and Yu, 2017, algorithm 1, with fast weights in the layer above the embedding and in the base learner.

    The softmax layer's slow weights are fixed and orthogonal, as in the paper's tests on other numbers of classes.
    """

    directions: Tensor

    def __init__(self, embedding: nn.Module, ways: int, hidden: int = 20) -> None:
        super().__init__()
        self.embedding = embedding
        self.top, self.base = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.register_buffer("directions", torch.linalg.qr(torch.randn(WIDTH, ways))[0].T.contiguous())
        self.recurrent, self.of_task = nn.LSTM(2, hidden), nn.Linear(hidden, 1)
        self.of_example = nn.Sequential(
            nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        """Return the logits of the queries [queries, ways]."""
        features = self.embedding(torch.cat([support_x, query_x]))
        support, queries = features[: len(support_x)], features[len(support_x) :]
        weight, bias = self._of_task(support, support_y)

        def represented(x: Tensor) -> Tensor:
            return F.relu(self.top(x)) + F.relu(F.linear(x, weight, bias))

        keys, r = represented(support), represented(queries)
        memory = self._of_examples(keys, support_y)
        attention = (SCALE * F.cosine_similarity(r[:, None], keys[None], dim=-1)).softmax(1)
        fast = [torch.einsum("qn,n...->q...", attention, torch.stack(one)) for one in zip(*memory, strict=True)]
        hidden = F.relu(self.base(r)) + F.relu(torch.einsum("qhw,qw->qh", fast[0], r) + fast[1])
        return hidden @ self.directions.T + torch.einsum("qkh,qh->qk", fast[2], hidden)

    def _of_task(self, support: Tensor, labels: Tensor) -> list[Tensor]:
        """Return the fast weights of the layer above the embedding."""
        read = []
        for x, y in zip(support, labels, strict=True):
            loss = F.cross_entropy(F.relu(self.top(x)) @ self.directions.T, y)
            read.append(torch.autograd.grad(loss, list(self.top.parameters()), create_graph=self.training))
        found = []
        for slopes in zip(*read, strict=True):
            sequence = torch.stack([preprocessed(slope) for slope in slopes])
            _, (last, _) = self.recurrent(sequence)
            found.append(FAST * self.of_task(last[0]).view(slopes[0].shape))
        return found

    def _of_examples(self, keys: Tensor, labels: Tensor) -> list[list[Tensor]]:
        """Return each example's fast weights of the base learner: layer, bias and softmax layer."""
        memory = []
        for key, y in zip(keys, labels, strict=True):
            directions = self.directions.clone().requires_grad_()
            loss = F.cross_entropy(directions @ F.relu(self.base(key)), y)
            moved = [*self.base.parameters(), directions]
            slopes = torch.autograd.grad(loss, moved, create_graph=self.training)
            memory.append([FAST * self.of_example(preprocessed(slope)).view(slope.shape) for slope in slopes])
        return memory
