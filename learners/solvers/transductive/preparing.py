"""How features are prepared before the support and the query set are compared: pure functions, batched over episodes.

Hu, Gripon and Pateux, 2021, https://arxiv.org/abs/2006.03806, section 3.2: the power transform makes the histogram of
a ReLU's features less skewed, and centring support and query set apart removes the shift between them.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

OFFSET = 1e-6  # the paper's epsilon: a feature of 0 has a finite slope
Centre = Literal["separate", "together", "none"]


def power_transform(x: Tensor, power: float | Tensor) -> Tensor:
    """Return (max(x, 0) + 1e-6)^power of features of any shape; the features themselves for a power of 1.

    A negative feature counts as 0: the paper's features come from a ReLU.
    """
    if isinstance(power, float) and power == 1.0:
        return x
    return (x.relu() + OFFSET) ** power


def centred(support: Tensor, queries: Tensor, centre: Centre) -> tuple[Tensor, Tensor]:
    """Subtract the mean of the support set [e, s, d] and of the queries [e, q, d], each its own or both together's.

    The mean of one query is that query: it is moved by the support set's mean, or nothing would be left of it.
    """
    if centre == "none":
        return support, queries
    mean = support.mean(1, keepdim=True)
    if centre == "together":
        n, q = support.shape[1], queries.shape[1]
        mean = (n * mean + queries.sum(1, keepdim=True)) / (n + q)
        return support - mean, queries - mean
    moved = mean if queries.shape[1] == 1 else queries.mean(1, keepdim=True)
    return support - mean, queries - moved


def prepared(support: Tensor, queries: Tensor, *, power: float | Tensor, centre: Centre) -> tuple[Tensor, Tensor]:
    """Power transform, unit length, centre, unit length: support [e, s, d] and queries [e, q, d].

    The paper's QR reduction turns all features of an episode by one rotation, which changes no distance; what is
    computed from their inner products (``Span``) needs none.
    """
    unit = [F.normalize(power_transform(x, power), dim=-1) for x in (support, queries)]
    moved = centred(unit[0], unit[1], centre)
    return F.normalize(moved[0], dim=-1), F.normalize(moved[1], dim=-1)


def class_means(x: Tensor, members: Tensor) -> Tensor:
    """Average examples [e, n, d] by their shares in the classes [e, n, ways]: [e, ways, d]; 0 for an empty class."""
    return members.mT @ x / members.sum(1).clamp_min(TINY).unsqueeze(-1)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared Euclidean distances of [e, n, d] and [e, m, d]: [e, n, m]."""
    squares = x.square().sum(-1).unsqueeze(-1) + y.square().sum(-1).unsqueeze(-2)
    return (squares - 2 * x @ y.mT).relu()


TINY = 1e-12


class Span:
    """Points that are weighted sums of an episode's examples, and their distances to these.

    With fewer examples than features the inner products of the examples are computed once [e, n, n], in place of the
    paper's QR reduction: no step of an algorithm then costs more than n^2, and duplicates do no harm.
    """

    def __init__(self, x: Tensor) -> None:
        few = x.shape[1] < x.shape[2]
        self._parts: tuple[Tensor, ...] = (x @ x.mT,) if few else (x, x.mT)
        self._squares = x.square().sum(-1)  # [e, n]

    @classmethod
    def joined(cls, spans: Sequence["Span"]) -> "Span":
        """Put the episodes of several spans, of equally many examples, into one: what they hold is small."""
        made = cls.__new__(cls)
        made._parts = tuple(torch.cat(parts) for parts in zip(*(one._parts for one in spans), strict=True))
        made._squares = torch.cat([one._squares for one in spans])
        return made

    @property
    def examples(self) -> int:
        """How many examples an episode has."""
        return self._squares.shape[1]

    def products(self, weights: Tensor) -> Tensor:
        """Return the inner products of the points with these weights [e, k, n] and the examples: [e, k, n]."""
        for part in self._parts:
            weights = weights @ part
        return weights

    def distances(self, weights: Tensor) -> Tensor:
        """Return the squared distances of the examples to the points with these weights [e, k, n]: [e, n, k]."""
        products = self.products(weights)
        lengths = (products * weights).sum(-1, keepdim=True)  # [e, k, 1]
        return (self._squares.unsqueeze(1) - 2 * products + lengths).mT
