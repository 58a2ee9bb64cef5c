"""Small modules as a user would write them, for the tests of networks of one's own."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaloom.learners.episode import TaskShape


class Perceptron(nn.Module):
    """Two layers; ``body`` and ``fc``."""

    def __init__(self, inputs: int = 6, outputs: int = 3, width: int = 5, dropout: float = 0.0) -> None:
        super().__init__()
        self.body, self.drop, self.fc = nn.Linear(inputs, width), nn.Dropout(dropout), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(torch.tanh(self.body(x))))


def for_task(task: TaskShape, width: int = 5) -> nn.Module:
    """Fit a task's own shape."""
    return nn.Sequential(nn.Flatten(), Perceptron(math.prod(task.inputs), task.outputs, width))


class Tied(nn.Module):
    """One weight under two names, and one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.fc = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.again.weight = self.first.weight
        self.twice = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.twice(torch.tanh(self.again(torch.tanh(self.first(x)))))))


class Normalized(nn.Module):
    """Batch norm with an epsilon of its own, and a buffer that is counted up in place."""

    def __init__(self, eps: float = 1e-3, **settings: Any) -> None:
        super().__init__()
        self.body, self.bn, self.fc = nn.Linear(6, 5), nn.BatchNorm1d(5, eps=eps, **settings), nn.Linear(5, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return self.fc(torch.tanh(self.bn(self.body(x)))) + 0.1 * self.calls


class Recurrent(nn.Module):
    """LSTM, GRU or RNN over six steps of one feature."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.cell = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind](1, 4, batch_first=True)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.cell(x.unsqueeze(-1))[0][:, -1])


class Unused(Perceptron):
    """A layer that no pass uses, its gradient off or on."""

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2).requires_grad_(not frozen)


class Spelt(nn.Module):
    """A name with the letters of 'norm' in it, and a submodule named as the head is."""

    def __init__(self) -> None:
        super().__init__()
        self.abnormality, self.head, self.last = nn.Linear(6, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.silu(self.head(F.silu(self.abnormality(x)))))


made = Perceptron()


class LayerNormalized(nn.Module):
    """Two layers with layer normalization between them."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, 6] to [n, 3]."""
        outputs: Tensor = self.head(self.norm(self.body(x)).tanh())
        return outputs


class Projected(nn.Module):
    """A projection and a frozen layer that torch's seed does not decide: every construction draws others."""

    def __init__(self, inputs: int = 1, outputs: int = 1) -> None:
        super().__init__()
        entropy = torch.Generator()
        entropy.seed()
        self.register_buffer("projection", torch.randn(inputs, 4, generator=entropy))
        self.register_buffer("angles", torch.rand(4, generator=entropy), persistent=False)
        self.mix, self.bn, self.fc = nn.Linear(4, 4).requires_grad_(False), nn.BatchNorm1d(4), nn.Linear(4, outputs)
        self.mix.weight.copy_(torch.randn(4, 4, generator=entropy))

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, inputs] to [n, outputs]."""
        outputs: Tensor = self.fc(self.bn(self.mix(torch.tanh(x @ self.projection + self.angles))))
        return outputs


class Headless(nn.Module):
    """A matrix of its own in a submodule, and no linear layer."""

    def __init__(self, inputs: int = 6, outputs: int = 3) -> None:
        super().__init__()
        self.body, self.out = nn.Conv1d(1, 4, inputs), nn.Conv1d(4, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, inputs] to [n, outputs]."""
        outputs: Tensor = self.out(torch.tanh(self.body(x.unsqueeze(1)))).squeeze(-1)
        return outputs
