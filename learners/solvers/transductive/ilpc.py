r"""iLPC: labels spread along a graph, are balanced, and the cleanest of each class join the support set, in rounds.

Lazarou, Stathaki and Avrithis, 2021, https://arxiv.org/abs/2012.07962, equations 3 to 9:

    W = max(f_i . f_j, 0)^gamma among the k nearest,    Z = (I - alpha S)^-1 Y,    P = Sinkhorn((Z / row sums)^tau)

The guessed labels of P train a linear classifier from the class means. The examples whose loss, averaged over its
training, is least are taken as clean: ``cleanest`` of each class a round. The graph is that of all examples in every
round, so one inverse serves all rounds. The choice of labels is discrete: the gradient takes it as fixed, which is
exact wherever a small step does not change it. Cost: one n^3 solve, and ``cleaning_steps`` x n^2 x ways a round.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.domains import Bounds, Int, Learned, Real
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.transductive.balancing import (
    LEAST,
    BalanceConfig,
    among,
    estimated_shares,
    log_probabilities,
    sinkhorn,
)
from metaloom.learners.solvers.transductive.base import TransductiveHead
from metaloom.learners.solvers.transductive.cleaning import Cleaning, cleanest_of
from metaloom.learners.solvers.transductive.graphs import powered_similarity, propagator
from metaloom.learners.solvers.transductive.preparing import Centre, prepared
from metaloom.learners.tensors import Tensors


@dataclass(frozen=True)
class IlpcConfig(BalanceConfig):
    """The preparation, the graph, the balancing and the cleaning.

    Attributes:
        power: Of the power transform of the features; 1 leaves them as they are.
        centre: Whether support and queries are centred separately, together or not at all.
        neighbours: k of the graph.
        exponent: Gamma: the power of a similarity.
        spreading: Alpha of the label propagation.
        sharpness: Tau: the power of the spread labels before they are balanced.
        cleanest: Guessed labels of each class that are kept in a round.
        cleaning_steps: Training steps of the classifier whose losses say which labels are clean.
        cleaning_rate: Its learning rate.
        cleaning_momentum: Its momentum.
        cleaning_decay: Its weight decay.
    """

    power: Annotated[float | Learned, Real(0.1, 1.0)] = 0.5
    centre: Centre = "separate"
    neighbours: Annotated[int, Int(1, 200, log=True)] = 20
    exponent: Annotated[float | Learned, Real(0.5, 10.0, log=True, positive=True)] = 3.0
    spreading: Annotated[float | Learned, Real(0.01, 0.99, bounded=True), Bounds(at_least=0, below=1)] = 0.8
    sharpness: Annotated[float | Learned, Real(0.1, 10.0, log=True, positive=True)] = 3.0
    cleanest: Annotated[int, Int(1, 100, log=True)] = 3
    cleaning_steps: Annotated[int, Int(1, 2000, log=True)] = 50
    cleaning_rate: Annotated[float, Real(1e-3, 1.0, log=True, per=())] = 0.1
    cleaning_momentum: Annotated[float, Real(0.0, 0.99, per=()), Bounds(at_least=0, below=1)] = 0.9
    cleaning_decay: Annotated[float, Real(0.0, 0.1, per=())] = 5e-4

    def cleaning(self) -> Cleaning:
        """Return how the classifier is trained."""
        return Cleaning(self.cleaning_steps, self.cleaning_rate, self.cleaning_momentum, self.cleaning_decay)


def shared(scores: Tensor, present: Tensor, waiting: Tensor, taken: Tensor, config: BalanceConfig) -> Tensor:
    """Return the soft assignment [e, q, ways] of the ``waiting`` [e, q] queries, of which each class had ``taken``.

    A class that has had its equal share of the queries gets no more of them.
    """
    scores = among(scores, present)
    q, ways = scores.shape[1:]
    if config.marginal == "none" or q < ways:
        return torch.softmax(scores, -1)
    rows = waiting.to(scores.dtype)
    if config.marginal == "estimated":
        shares = estimated_shares(scores, present, config, rows)
    else:
        there = present.to(scores.dtype)
        quota = q * there / there.sum(-1, keepdim=True).clamp_min(1)
        shares = (quota - taken).clamp_min(0) + LEAST
        shares = shares / shares.sum(-1, keepdim=True)
    columns = shares * rows.sum(-1, keepdim=True)
    return sinkhorn(scores, rows, columns, steps=config.balance_steps, tolerance=config.tolerance)


def cleaned_assignments(
    x: Tensor, members: Tensor, spread: Tensor, config: IlpcConfig, sharpness: float | Tensor
) -> Tensor:
    """Return each query's assignment [e, q, ways] of the round in which its label was taken.

    Args:
        x: All examples [e, s + q, d], the support set first.
        members: Labels of the support set [e, s, ways].
        spread: The inverse that spreads labels [e, s + q, s + q].
        config: The settings.
        sharpness: Tau.
    """
    shots, ways = members.shape[1:]
    labels = torch.cat([members, members.new_zeros(len(x), x.shape[1] - shots, ways)], 1)
    waiting = torch.ones(labels[:, shots:, 0].shape, dtype=torch.bool, device=x.device)
    present, result = members.sum(1) > 0, torch.zeros_like(labels[:, shots:])
    while bool(waiting.any()):
        found = (spread @ labels)[:, shots:].clamp_min(LEAST)
        scores = sharpness * (found / found.sum(-1, keepdim=True)).log()
        plan = shared(scores, present, waiting, labels[:, shots:].sum(1), config)
        guesses = F.one_hot(plan.detach().argmax(-1), ways).to(x.dtype) * waiting.unsqueeze(-1)
        guessed = torch.cat([labels[:, :shots], labels[:, shots:] + guesses], 1)
        chosen = cleanest_of(x, members, guessed, guesses, config.cleanest, config.cleaning())
        # too few for every class to have one: what is left is taken as it stands, as in the paper's code
        chosen = torch.where(chosen.sum(-1, keepdim=True) < ways, waiting, chosen)
        result = torch.where(chosen.unsqueeze(-1), plan, result)
        labels = torch.cat([labels[:, :shots], labels[:, shots:] + guesses * chosen.unsqueeze(-1)], 1)
        waiting = waiting & ~chosen
    return result


@SOLVERS.register("ilpc")
class Ilpc(TransductiveHead):
    """Label propagation, balanced by Sinkhorn's iteration, in rounds that each keep the cleanest labels."""

    config: IlpcConfig

    def scores(self, phi: Tensors, support: Tensor, members: Tensor, queries: Tensor) -> Tensor:
        x, weights = self._graph(phi, support, queries)
        spread = propagator(weights, self.knob(phi, "spreading"))
        plan = cleaned_assignments(x, members, spread, self.config, self.knob(phi, "sharpness"))
        return log_probabilities(plan)

    def edges(self, phi: Tensors, support: Tensor, queries: Tensor) -> Tensor:
        return self._graph(phi, support, queries)[1]

    def _graph(self, phi: Tensors, support: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        moved = prepared(support, queries, power=self.knob(phi, "power"), centre=self.config.centre)
        x = torch.cat(moved, 1)
        return x, powered_similarity(x, self.config.neighbours, self.knob(phi, "exponent"))
