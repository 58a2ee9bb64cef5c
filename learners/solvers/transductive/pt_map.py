r"""PT+MAP: nothing is learned but the features; class centres and a balanced assignment of the queries find each other.

Hu, Gripon and Pateux, 2021, https://arxiv.org/abs/2006.03806, algorithm 1 and equations 1, 3 and 6:

    f <- power transform, unit length, centred (support and queries apart), unit length
    M   = Sinkhorn(exp(-lambda |f_i - c_j|^2)), each query once, each class q / ways times
    c_j <- c_j + alpha (mean of f weighted by the labels and by M - c_j)

It assumes that every class has equally many queries, and loses most of its lead where they have not (Veilleux et al.,
2021, https://arxiv.org/abs/2204.11181, table 1); ``marginal: estimated`` or ``none`` drops the assumption. Cost: one
matrix of inner products, then some hundred steps of Sinkhorn an epoch over q x ways numbers.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.domains import Int, Learned, Real
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.transductive.balancing import BalanceConfig, balanced, log_probabilities
from metaloom.learners.solvers.transductive.base import TransductiveHead
from metaloom.learners.solvers.transductive.preparing import TINY, Centre, Span, prepared
from metaloom.learners.tensors import Tensors


@dataclass(frozen=True)
class PtMapConfig(BalanceConfig):
    """The preparation of the features, and the search for the class centres.

    Attributes:
        power: Of the power transform; 1 leaves the features as they are.
        centre: Whether support and queries are centred separately, together or not at all.
        scale: Lambda: what squared distances are multiplied by.
        rate: Alpha: by how much a centre moves to the new mean; the paper takes 0.2 with 1 shot and 0.4 with 5.
        epochs: Moves of the centres.
    """

    power: Annotated[float | Learned, Real(0.1, 1.0)] = 0.5
    centre: Centre = "separate"
    scale: Annotated[float | Learned, Real(0.1, 100.0, log=True, positive=True)] = 10.0
    rate: Annotated[float | Learned, Real(0.05, 1.0)] = 0.2
    epochs: Annotated[int, Int(0, 100)] = 20


def map_assignments(
    span: Span,
    members: Tensor,
    config: BalanceConfig,
    *,
    scale: float | Tensor,
    rate: float | Tensor,
    epochs: int,
) -> Tensor:
    """Return the soft assignment [e, q, ways] of the queries to the centres that it and they agree on.

    A centre is held as its weights over all examples, so that no step is longer than the number of examples.

    Args:
        span: Of the prepared features of the support set, then the queries.
        members: Labels of the support set [e, s, ways].
        config: What is assumed of the classes' shares.
        scale: Lambda.
        rate: Alpha.
        epochs: Moves of the centres.
    """
    present, shots = members.sum(1) > 0, members.shape[1]
    known = members.mT  # [e, ways, s]
    weights = F.pad(known / known.sum(-1, keepdim=True).clamp_min(1), (0, span.examples - shots))
    for _ in range(epochs):
        plan = balanced(-scale * span.distances(weights)[:, shots:], present, config)
        found = torch.cat([known, plan.mT], -1)  # [e, ways, n]
        weights = weights + rate * (found / found.sum(-1, keepdim=True).clamp_min(TINY) - weights)
    return balanced(-scale * span.distances(weights)[:, shots:], present, config)


@SOLVERS.register("pt_map")
class PtMap(TransductiveHead):
    """Power transform, then class centres under a balanced assignment of the queries."""

    config: PtMapConfig

    def scores(self, phi: Tensors, support: Tensor, members: Tensor, queries: Tensor) -> Tensor:
        support, queries = prepared(support, queries, power=self.knob(phi, "power"), centre=self.config.centre)
        plan = map_assignments(
            Span(torch.cat([support, queries], 1)),
            members,
            self.config,
            scale=self.knob(phi, "scale"),
            rate=self.knob(phi, "rate"),
            epochs=self.config.epochs,
        )
        return log_probabilities(plan)
