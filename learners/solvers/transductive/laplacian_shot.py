r"""LaplacianShot: each query goes to a near class mean, and neighbouring queries to the same class.

Ziko et al., 2020, https://arxiv.org/abs/2006.15486, equations 1, 7 and 12, over prototypes that are rectified as by
Liu, Song and Qin, 2020, https://arxiv.org/abs/1911.10713:

    a_qc = |f_q - m_c|^2,    y_q <- softmax_c(-a_qc + lambda sum_p w_qp y_pc),    w_qp = 1 for the nearest queries p

Each update lowers an upper bound of the objective, whatever the graph. It assumes nothing of the classes' shares;
``marginal`` adds an assumption to every update. The choice of neighbours, and of the class that a query rectifies, is
discrete: the gradient takes it as fixed. Cost: the distances between the queries, then q^2 x ways an iteration.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.domains import Int, Learned, Real
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.transductive.balancing import BalanceConfig, Marginal, among, balanced, log_probabilities
from metaloom.learners.solvers.transductive.base import TransductiveHead
from metaloom.learners.solvers.transductive.graphs import nearest
from metaloom.learners.solvers.transductive.preparing import class_means, prepared, squared_distances
from metaloom.learners.tensors import Tensors

SHARPNESS = 10.0  # of the cosines that weight the examples of a rectified prototype (Liu et al., section 3.3)


@dataclass(frozen=True)
class LaplacianShotConfig(BalanceConfig):
    """The class means, and the graph over the queries.

    Attributes:
        power: Of the power transform of the features; 1 leaves them as they are.
        rectify: Whether the queries are moved to the support set's mean, and join the means of their likely classes.
        scale: What squared distances are multiplied by.
        smoothness: Lambda: the weight of the neighbours.
        neighbours: How many each query has.
        iterations: Updates of the queries' shares.
    """

    marginal: Marginal = "none"
    power: Annotated[float | Learned, Real(0.1, 1.0)] = 1.0
    rectify: bool = True
    scale: Annotated[float | Learned, Real(0.1, 100.0, log=True, positive=True)] = 1.0
    smoothness: Annotated[float | Learned, Real(0.01, 10.0, log=True, positive=True)] = 0.7
    neighbours: Annotated[int, Int(1, 100, log=True)] = 3
    iterations: Annotated[int, Int(0, 200)] = 20


def rectified(support: Tensor, members: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Return the class means [e, ways, d] over support and queries, and the queries moved by the shift of both sets."""
    present = members.sum(1) > 0
    queries = queries + support.mean(1, keepdim=True) - queries.mean(1, keepdim=True)
    directions = F.normalize(class_means(support, members), dim=-1).mT  # [e, d, ways]
    near = [F.normalize(x, dim=-1) @ directions for x in (support, queries)]
    guesses = F.one_hot(among(near[1], present).argmax(-1), members.shape[-1]).to(members.dtype)
    shares = torch.cat([members * (SHARPNESS * near[0]).exp(), guesses * (SHARPNESS * near[1]).exp()], 1)
    return class_means(torch.cat([support, queries], 1), shares), queries


def propagated(
    distances: Tensor, weights: Tensor, present: Tensor, config: LaplacianShotConfig, smoothness: float | Tensor
) -> Tensor:
    """Return the queries' shares [e, q, ways] after the updates, from distances [e, q, ways] and weights [e, q, q]."""
    shares = balanced(-distances, present, config)
    for _ in range(config.iterations):
        shares = balanced(smoothness * weights @ shares - distances, present, config)
    return shares


@SOLVERS.register("laplacian_shot")
class LaplacianShot(TransductiveHead):
    """Nearest class means, with neighbouring queries drawn to the same class."""

    config: LaplacianShotConfig

    def scores(self, phi: Tensors, support: Tensor, members: Tensor, queries: Tensor) -> Tensor:
        support, queries = prepared(support, queries, power=self.knob(phi, "power"), centre="none")
        means = class_means(support, members)
        if self.config.rectify and queries.shape[1] > 1:
            means, queries = rectified(support, members, queries)
        distances = self.knob(phi, "scale") * squared_distances(queries, means)
        weights = self._weights(queries)
        present = members.sum(1) > 0
        return log_probabilities(propagated(distances, weights, present, self.config, self.knob(phi, "smoothness")))

    def edges(self, phi: Tensors, support: Tensor, queries: Tensor) -> Tensor:
        _, queries = prepared(support, queries, power=self.knob(phi, "power"), centre="none")
        n = support.shape[1]
        return F.pad(self._weights(queries), (n, 0, n, 0))

    def _weights(self, queries: Tensor) -> Tensor:
        return nearest(-squared_distances(queries, queries), self.config.neighbours).to(queries.dtype)
