"""Networks whose head is fitted to the support set, as their users write them in torch: what ours are compared with."""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEPS = 300  # of the projected gradient


class Fitted(nn.Module):
    """An embedding, and the scores of queries by what is fitted to the features of the support set."""

    def __init__(self, embedding: nn.Module, scale: float) -> None:
        super().__init__()
        self.embedding = embedding
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def forward(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        """Embed support set and queries in one batch, fit, and return the queries' outputs [queries, ways]."""
        features = self.embedding(torch.cat([support_x, query_x]))
        support, queries = features[: len(support_x)], features[len(support_x) :]
        return self.log_scale.exp() * self.scores(support, support_y, queries)

    @abstractmethod
    def scores(self, support: Tensor, support_y: Tensor, queries: Tensor) -> Tensor:
        """Return the scores [queries, ways] of features [queries, d], fitted to features [n, d]."""


class Prototypes(Fitted):
    """Snell et al., 2017; the scale is held at 1."""

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__(embedding, 1.0)
        self.log_scale.requires_grad_(False)

    def scores(self, support: Tensor, support_y: Tensor, queries: Tensor) -> Tensor:
        means = torch.stack([support[support_y == one].mean(0) for one in support_y.unique()])
        return -torch.cdist(queries, means, compute_mode="donot_use_mm_for_euclid_dist").square()


class RidgeRegression(Fitted):
    """Bertinetto et al., 2019, equation 4, whatever the number of examples."""

    def __init__(self, embedding: nn.Module, penalty: float = 1.0, scale: float = 10.0) -> None:
        super().__init__(embedding, scale)
        self.log_penalty = nn.Parameter(torch.tensor(penalty).log())

    def scores(self, support: Tensor, support_y: Tensor, queries: Tensor) -> Tensor:
        x, z = F.pad(support, (0, 1), value=1.0), F.pad(queries, (0, 1), value=1.0)
        labels = F.one_hot(support_y).to(x)
        square = x.T @ x + len(x) * self.log_penalty.exp() * torch.eye(x.shape[1], dtype=x.dtype)
        return z @ torch.linalg.inv(square) @ x.T @ labels


class MaximumMargin(Fitted):
    """Lee et al., 2019: Crammer and Singer's dual by accelerated projected gradient, differentiated through it."""

    def __init__(
        self,
        embedding: nn.Module,
        cost: float = 0.1,
        dual_ridge: float = 1e-3,
        scale: float = 1.0,
        steps: int = STEPS,
    ) -> None:
        super().__init__(embedding, scale)
        self.cost, self.dual_ridge, self.steps = cost, dual_ridge, steps

    def scores(self, support: Tensor, support_y: Tensor, queries: Tensor) -> Tensor:
        kernel = support @ support.T
        kernel = kernel + self.dual_ridge * kernel.diagonal().mean() * torch.eye(len(kernel), dtype=kernel.dtype)
        labels = F.one_hot(support_y).to(kernel)
        rate = 1 / torch.linalg.matrix_norm(kernel.detach(), 2)
        alpha = ahead = torch.zeros_like(labels)
        momentum = 1.0
        for _ in range(self.steps):
            before, alpha = alpha, self._feasible(ahead - rate * (kernel @ ahead - labels), labels)
            following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            ahead, momentum = alpha + (momentum - 1) / following * (alpha - before), following
        return queries @ support.T @ alpha

    def _feasible(self, alpha: Tensor, labels: Tensor) -> Tensor:
        """Project onto rows that sum to 0 and are at most C at the label, and 0 elsewhere."""
        left = self.cost * labels - alpha  # onto C times the simplex
        ordered = left.sort(descending=True).values
        places = torch.arange(1, left.shape[1] + 1, dtype=left.dtype)
        excess = (ordered.cumsum(1) - self.cost) / places
        kept = (ordered > excess).sum(1, keepdim=True)
        return self.cost * labels - (left - excess.gather(1, kept - 1)).clamp_min(0)
