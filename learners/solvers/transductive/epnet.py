r"""EPNet: features are smoothed along a graph over the episode, then labels spread along the graph of the smooth ones.

Rodriguez et al., 2020, https://arxiv.org/abs/2003.04151, equations 1 to 4 and section 3.3:

    A_ij = exp(-d_ij^2 / s),    S = D^-1/2 A D^-1/2,    z~ = (I - alpha S)^-1 z,    labels = (I - alpha_l S~)^-1 Y

The smoothing is differentiated in training. It assumes nothing of the classes' shares; ``marginal`` adds an
assumption. Cost: two dense solves over all examples of the episode, n^3 each.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from metaloom.learners.domains import Bounds, Learned, Real
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.transductive.balancing import BalanceConfig, Marginal, balanced, log_probabilities
from metaloom.learners.solvers.transductive.base import TransductiveHead
from metaloom.learners.solvers.transductive.graphs import gaussian_similarity, propagator
from metaloom.learners.tensors import Tensors

OFFSET = 1e-6  # added to a spread label before its logarithm, as in the paper's code
Damping = Annotated[float | Learned, Real(0.01, 0.99, bounded=True), Bounds(at_least=0, below=1)]


@dataclass(frozen=True)
class EpnetConfig(BalanceConfig):
    """The two graphs.

    Attributes:
        smoothing: Alpha of the features: how far they are drawn to their neighbours'.
        spreading: Alpha of the labels.
        scale: What squared distances, in units of their deviation, are multiplied by in both graphs.
    """

    marginal: Marginal = "none"
    smoothing: Damping = 0.5
    spreading: Damping = 0.2
    scale: Annotated[float | Learned, Real(0.1, 10.0, log=True, positive=True)] = 1.0


def smoothed(x: Tensor, *, smoothing: float | Tensor, scale: float | Tensor) -> Tensor:
    """Return the features [e, n, d] drawn to their neighbours'."""
    return propagator(gaussian_similarity(x, scale), smoothing) @ x


@SOLVERS.register("epnet")
class Epnet(TransductiveHead):
    """Embedding propagation, then label propagation."""

    config: EpnetConfig

    def scores(self, phi: Tensors, support: Tensor, members: Tensor, queries: Tensor) -> Tensor:
        spread = propagator(self.edges(phi, support, queries), self.knob(phi, "spreading"))
        found = spread[:, support.shape[1] :, : support.shape[1]] @ members + OFFSET  # [e, q, ways]
        shares = found / found.sum(-1, keepdim=True)
        return log_probabilities(balanced(shares.log(), members.sum(1) > 0, self.config))

    def edges(self, phi: Tensors, support: Tensor, queries: Tensor) -> Tensor:
        scale = self.knob(phi, "scale")
        x = smoothed(torch.cat([support, queries], 1), smoothing=self.knob(phi, "smoothing"), scale=scale)
        return gaussian_similarity(x, scale)
