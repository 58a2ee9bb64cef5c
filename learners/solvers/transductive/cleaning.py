"""Which guessed labels are likely right: those that a classifier in training has the least loss on.

Lazarou, Stathaki and Avrithis, 2021, https://arxiv.org/abs/2012.07962, section 3.4, after Huang et al., 2019:
labels that are wrong keep a large loss while a classifier is trained at a large rate.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from metaloom.learners.solvers.transductive.preparing import TINY, Span


@dataclass(frozen=True)
class Cleaning:
    """Gradient descent with momentum and weight decay of a linear classifier over all examples."""

    steps: int
    rate: float
    momentum: float
    decay: float


@torch.no_grad()
def mean_losses(x: Tensor, members: Tensor, labels: Tensor, cleaning: Cleaning) -> Tensor:
    """Return every example's cross entropy [e, n], averaged over the training of a linear classifier.

    It starts at the directions of the class means of the support set. Its weights stay sums of the examples, so they
    are held as the factors of these.

    Args:
        x: All examples [e, n, d], the support set first.
        members: Labels of the support set [e, s, ways].
        labels: Labels of all examples [e, n, ways]; no row of one that is left out.
        cleaning: How it is trained.
    """
    span, taken = Span(x), labels.sum(-1)
    count = taken.sum(-1, keepdim=True).unsqueeze(-1)
    start = torch.cat(
        [members, labels.new_zeros(labels.shape[0], labels.shape[1] - members.shape[1], labels.shape[2])], 1
    )
    weights = (start / start.sum(1, keepdim=True).clamp_min(1)).mT  # [e, ways, n]
    weights = weights / (span.products(weights) * weights).sum(-1, keepdim=True).clamp_min(TINY).sqrt()
    bias, targets = weights.new_zeros(*weights.shape[:2], 1), labels.mT
    velocity, bias_velocity, total = torch.zeros_like(weights), torch.zeros_like(bias), torch.zeros_like(taken)
    for _ in range(cleaning.steps):
        logs = torch.log_softmax(span.products(weights) + bias, 1)
        total = total - (targets * logs).sum(1)
        slope = (logs.exp() * taken.unsqueeze(1) - targets) / count
        velocity = cleaning.momentum * velocity + slope + cleaning.decay * weights
        bias_velocity = cleaning.momentum * bias_velocity + slope.sum(-1, keepdim=True) + cleaning.decay * bias
        weights, bias = weights - cleaning.rate * velocity, bias - cleaning.rate * bias_velocity
    return total / cleaning.steps


def cleanest_of(x: Tensor, members: Tensor, labels: Tensor, guesses: Tensor, each: int, cleaning: Cleaning) -> Tensor:
    """Mark the queries whose guessed label [e, q, ways] is among the ``each`` cleanest of its class: bool [e, q]."""
    losses = mean_losses(x, members, labels, cleaning)[:, members.shape[1] :]  # [e, q]
    of_class = torch.where(guesses.mT > 0, losses.unsqueeze(1), torch.inf)  # [e, ways, q]
    ranks = of_class.argsort(stable=True, dim=-1).argsort(-1)
    return ((ranks < each) & (guesses.mT > 0)).any(1)
