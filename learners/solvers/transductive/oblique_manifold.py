r"""Oblique manifold: class prototypes that are found by gradient descent on spheres, from support and queries together.

Qi, Yu, Lu and Li, 2021, https://arxiv.org/abs/2108.04009, sections 3.3 to 3.5. A feature map is a point of the oblique
manifold: each of its columns has length 1. Distances are taken in the tangent spaces at T + 1 anchors a_t between the
mean of the queries and that of the support set:

    d_t(x, p) = |log_at(x) - log_at(p)|^2 / 2,    logits = -s sum_t w_t d_t / sum_t w_t

with the support's weights w_t, and 1 - w_t for the queries. Prototypes and anchors descend, by Riemannian Adam,

    cross entropy of the support set + l_c H(y | query) - l_m H(mean of y over the queries)

The last term assumes balanced queries (mutual information, as TIM's). ``none`` leaves it out, after which H alone may
draw all queries to one class (docs/reproductions.md, M10: chance on weak features); ``estimated`` draws the mean to the
estimated shares instead, by their Kullback-Leibler divergence. The region self-attention of the paper
changes the network and is not part of this head. Cost: ``steps`` x (T + 1) distances and their gradients.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.domains import Int, Learned, Real
from metaloom.learners.errors import LearnerError
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.transductive.balancing import LEAST, BalanceConfig, among, estimated_shares
from metaloom.learners.solvers.transductive.base import TransductiveHead
from metaloom.learners.solvers.transductive.preparing import class_means
from metaloom.learners.solvers.transductive.spheres import Descent, stretched
from metaloom.learners.tensors import Tensors


@dataclass(frozen=True)
class ObliqueManifoldConfig(BalanceConfig):
    """The manifold, the loss and the descent.

    Attributes:
        columns: Columns of a feature map, such as 49 for one of 7 by 7; 1 takes all features as one point of a sphere.
        anchors: T: there is one anchor more; 0 has that of the support set alone.
        scale: S: what distances are multiplied by.
        steps: Of the descent.
        rate: Its learning rate, on a cosine from here to 0.
        entropy: L_c: the weight of each query's entropy.
        marginal_weight: L_m: the weight of what is assumed of the classes' shares.
    """

    columns: Annotated[int, Int(1, 10_000, log=True)] = 1
    anchors: Annotated[int, Int(0, 50)] = 14
    scale: Annotated[float | Learned, Real(0.1, 100.0, log=True, positive=True)] = 15.0
    steps: Annotated[int, Int(0, 500)] = 40
    rate: Annotated[float | Learned, Real(1e-3, 1.0, log=True, positive=True)] = 0.1
    entropy: Annotated[float | Learned, Real(0.0, 10.0)] = 1.0
    marginal_weight: Annotated[float | Learned, Real(0.0, 100.0)] = 10.0


def anchor_weights(count: int, like: Tensor) -> Tensor:
    """Return the support's weight of each of T + 1 anchors, from the queries' end to the support's: [T + 1].

    1 - r (2 r - 1)^2 with r = t / T, scaled into (0, 0.9] as in the paper's code, so that the queries have a weight
    in each.
    """
    at = torch.arange(count + 1, dtype=like.dtype, device=like.device) / max(count, 1)
    return ((1 - at * (2 * at - 1).square()) + 0.1) / 1.1 * 0.9


def anchors_between(support: Tensor, queries: Tensor, count: int) -> Tensor:
    """Return the mean of the support set, then ``count`` means from mostly the queries to the support set's own.

    [e, count + 1, columns, d], on the spheres.
    """
    sums = support.sum(1, keepdim=True), queries.sum(1, keepdim=True)
    found = [support.mean(1, keepdim=True)]
    found += [(count - t) * sums[1] + t * sums[0] for t in range(1, count + 1)]
    return F.normalize(torch.cat(found, 1), dim=-1)


def tangent_distances(x: Tensor, prototypes: Tensor, anchors: Tensor) -> Tensor:
    """Return half the squared distances, in each anchor's tangent space, per column: [e, anchors, n, ways].

    Of points [e, n, columns, d], prototypes [e, ways, columns, d] and anchors [e, anchors, columns, d] the inner
    products are enough: <log_a(x), log_a(p)> is the product of both factors and <x, p> - <a, x> <a, p>.
    """
    at, points, means = (one.transpose(1, 2) for one in (anchors, x, prototypes))  # [e, columns, ., d]
    near, far = at @ points.mT, at @ means.mT  # cosines [e, columns, anchors, n] and [e, columns, anchors, ways]
    stretch, others = stretched(near), stretched(far)
    lengths = stretch.square() * (1 - near.square()), others.square() * (1 - far.square())
    products = (points @ means.mT).unsqueeze(2) - near.unsqueeze(-1) * far.unsqueeze(-2)
    products = stretch.unsqueeze(-1) * others.unsqueeze(-2) * products  # [e, columns, anchors, n, ways]
    squares = lengths[0].unsqueeze(-1) + lengths[1].unsqueeze(-2) - 2 * products
    return squares.sum(1) / 2 / x.shape[2]


@SOLVERS.register("oblique_manifold")
class ObliqueManifold(TransductiveHead):
    """Prototypes and anchors on spheres, found from support and queries together."""

    config: ObliqueManifoldConfig

    def scores(self, phi: Tensors, support: Tensor, members: Tensor, queries: Tensor) -> Tensor:
        support, queries = self._points(support), self._points(queries)
        flat = class_means(support.flatten(2), members).view(len(support), -1, *support.shape[2:])
        start = (F.normalize(flat, dim=-1), anchors_between(support, queries, self.config.anchors))
        present = members.sum(1) > 0
        first = self._logits(phi, support, queries, *start)[1]
        shares = estimated_shares(among(first.detach(), present), present, self.config)

        def loss(prototypes: Tensor, anchors: Tensor) -> Tensor:
            of_support, of_queries = self._logits(phi, support, queries, prototypes, anchors)
            known = -(members * torch.log_softmax(among(of_support, present), -1)).sum((1, 2)) / members.sum((1, 2))
            return (known + self._of_queries(phi, among(of_queries, present), shares)).sum()

        found = Descent(self.config.steps, self.knob(phi, "rate")).run(loss, start)
        return among(self._logits(phi, support, queries, *found)[1], present)

    def _of_queries(self, phi: Tensors, logits: Tensor, shares: Tensor) -> Tensor:
        """Return the part of the loss that is the queries' [e]; of fewer queries than classes nothing is assumed."""
        logs = torch.log_softmax(logits, -1)
        loss = -self.knob(phi, "entropy") * (logs.exp() * logs).sum(-1).mean(1)
        if self.config.marginal == "none" or logits.shape[1] < logits.shape[2]:
            return loss
        mean = logs.exp().mean(1)  # [e, ways]
        aim = (
            (mean.clamp_min(LEAST) / shares.clamp_min(LEAST))
            if self.config.marginal == "estimated"
            else mean.clamp_min(LEAST)
        )
        return loss + self.knob(phi, "marginal_weight") * (mean * aim.log()).sum(-1)

    def _logits(
        self, phi: Tensors, support: Tensor, queries: Tensor, prototypes: Tensor, anchors: Tensor
    ) -> tuple[Tensor, Tensor]:
        weights = anchor_weights(self.config.anchors, support)[None, :, None, None]
        scale, total = self.knob(phi, "scale"), weights.sum()
        others = 1 - weights if self.config.anchors else weights
        of_support = (weights * tangent_distances(support, prototypes, anchors)).sum(1)
        of_queries = (others * tangent_distances(queries, prototypes, anchors)).sum(1)
        return -scale * of_support / total, -scale * of_queries / total

    def _points(self, x: Tensor) -> Tensor:
        """Return features [e, n, d * columns], whose columns vary fastest, as points [e, n, columns, d]."""
        columns = self.config.columns
        if x.shape[-1] % columns:
            raise LearnerError(
                f"learner.prediction.columns: {columns} columns do not divide {x.shape[-1]} features; for the maps of "
                "a convolution give height times width, or 1"
            )
        return F.normalize(x.view(*x.shape[:2], -1, columns).mT, dim=-1)
