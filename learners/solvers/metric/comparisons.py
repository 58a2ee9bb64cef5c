"""What the metric solvers share: which examples count, how far apart two are, and each class's share of attention."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.episode import Support
from metaloom.learners.tensors import one_hot

COSINE_SCALE = 10.0  # a cosine's softmax over ways is nearly flat without it
ABSENT = -1e4  # the logarithm of no share at all: finite in every precision, and 0 after a softmax


def kept(support: Support) -> Support:
    """Return the support set without the examples that fill it up, which then play no part in batch norm either."""
    if support.mask is None:
        return support
    return replace(support, x=support.x[support.mask], y=support.y[support.mask], mask=None)


def spread(values: Tensor, support: Support) -> Tensor:
    """Return values of the examples that are ``kept`` [kept, ...] at their places in the support set: [n, ...]."""
    if support.mask is None:
        return values
    places = torch.zeros(len(support.y), *values.shape[1:], dtype=values.dtype, device=values.device)
    places[support.mask] = values
    return places


def square_distances(left: Tensor, right: Tensor) -> Tensor:
    """Return |left_i - right_j|^2 of [n, d] and [m, d]: [n, m]."""
    return left.square().sum(-1, keepdim=True) + right.square().sum(-1) - 2 * left @ right.T


def cosines(left: Tensor, right: Tensor) -> Tensor:
    """Return the cosine of each pair of rows of [n, d] and [m, d]: [n, m]; 0 for a row of zeros."""
    return F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T


def similarities(metric: str, left: Tensor, right: Tensor) -> Tensor:
    """Return how similar rows of [n, d] and [m, d] are, as logits [n, m], by ``euclidean`` or ``cosine``."""
    if metric == "cosine":
        return COSINE_SCALE * cosines(left, right)
    return -square_distances(left, right)


def log_shares(logits: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Return the logarithm of each class's share of the attention to the support examples.

    Args:
        logits: Of the attention: [queries, n].
        labels: Of the support examples, int64 [n].
        ways: How many classes; one without an example has a share of 0.

    Returns:
        [queries, ways]; a softmax over classes gives the shares.
    """
    attention = F.log_softmax(logits, -1)
    members = one_hot(labels, ways, logits).T.bool()  # [ways, n]
    return torch.logsumexp(torch.where(members, attention.unsqueeze(1), ABSENT), -1)
