r"""PTN's classifier: Poisson learning on a graph over the episode, then cuts of the graph with given class sizes.

Huang et al., 2021, https://arxiv.org/abs/2012.10844, section 3.2 (its transfer of the encoder by a contrastive loss is
not part of this head), after Calder, Cook, Thorpe and Slepcev, 2020, https://arxiv.org/abs/2006.11184, algorithms 1
and 2. With the labels y_i, their mean y' and L = D - W:

    L U = F,  F_i = y_i - y' for a labelled i, 0 elsewhere:    U <- D^-1 (F + W U)
    then in rounds:  U <- U - dt (L U - mu F),  several times;  U <- one-hot(argmax(r U)),  r such that the sizes are b

The labels are sources of heat and not fixed values, so that few of them do not leave spikes. The class sizes b are an
assumption: equal for ``uniform``, found by expectation maximization for ``estimated``; with ``none`` r is 1. The cuts
are discrete: the gradient goes through the last diffusion, and through all of Poisson learning without rounds. Cost:
n^2 x ways a step.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.domains import Bounds, Int, Learned, Real
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.transductive.balancing import BalanceConfig, among, estimated_shares
from metaloom.learners.solvers.transductive.base import TransductiveHead
from metaloom.learners.solvers.transductive.graphs import local_similarity
from metaloom.learners.solvers.transductive.preparing import TINY, Centre, prepared
from metaloom.learners.tensors import Tensors

SIZE_RATE, LEAST_FACTOR, MOST_FACTOR = 10.0, 0.5, 2.0  # of r (Calder et al., algorithm 2)


@dataclass(frozen=True)
class PtnConfig(BalanceConfig):
    """The preparation, the graph, Poisson learning and the cuts.

    Attributes:
        balance_steps: Steps that find the factors r of the classes for their sizes.
        power: Of the power transform of the features; 1 leaves them as they are.
        centre: Whether support and queries are centred separately, together or not at all.
        neighbours: Of each example in the graph; the distance to the last is its scale.
        poisson_steps: Steps of Poisson learning.
        rounds: Cuts of the graph; 0 takes the result of Poisson learning.
        diffusion_steps: Steps before each cut.
        fidelity: Mu: the strength of the labels in them.
        scale: What the result is multiplied by before the softmax.
    """

    balance_steps: Annotated[int, Int(1, 10_000, log=True)] = 100
    power: Annotated[float | Learned, Real(0.1, 1.0)] = 0.5
    centre: Centre = "separate"
    neighbours: Annotated[int, Int(1, 200, log=True)] = 10
    poisson_steps: Annotated[int, Int(1, 1000, log=True)] = 100
    rounds: Annotated[int, Int(0, 100)] = 20
    diffusion_steps: Annotated[int, Int(1, 200, log=True)] = 40
    fidelity: Annotated[float | Learned, Real(0.01, 10.0, log=True, positive=True)] = 1.0
    scale: Annotated[float | Learned, Real(0.1, 100.0, log=True, positive=True), Bounds(above=0)] = 10.0


def poisson(weights: Tensor, source: Tensor, steps: int) -> Tensor:
    """Return U [e, n, ways] after so many steps towards L U = ``source`` [e, n, ways], on weights [e, n, n]."""
    degrees = weights.sum(-1, keepdim=True).clamp_min(TINY)
    found = torch.zeros_like(source)
    for _ in range(steps):
        found = (source + weights @ found) / degrees
    return found


@torch.no_grad()
def size_factors(found: Tensor, shares: Tensor, steps: int) -> Tensor:
    """Return the factors r [e, 1, ways] with which the largest of ``found`` [e, n, ways] has these class shares."""
    factors = torch.ones_like(shares)
    for _ in range(steps):
        sizes = _cut(found * factors.unsqueeze(1)).mean(1)
        factors = (factors + SIZE_RATE * (shares - sizes)).clamp(LEAST_FACTOR, MOST_FACTOR)
    return factors.unsqueeze(1)


def _cut(found: Tensor) -> Tensor:
    return F.one_hot(found.argmax(-1), found.shape[-1]).to(found.dtype)


def sources(members: Tensor, queries: int) -> Tensor:
    """Return F [e, s + q, ways]: each label less the mean label, and 0 for the queries."""
    return F.pad(members - members.mean(1, keepdim=True), (0, 0, 0, queries))


def cut_in_rounds(
    weights: Tensor, source: Tensor, start: Tensor, shares: Tensor | None, config: PtnConfig, fidelity: float | Tensor
) -> Tensor:
    """Return r U [e, n, ways] of the last round, from Poisson learning's result; without ``shares`` r is 1."""
    degrees = weights.sum(-1, keepdim=True)
    pace = 1 / degrees.amax(1, keepdim=True).clamp_min(TINY)
    found = start
    for index in range(config.rounds):
        if index:
            found = _cut(found.detach())
        for _ in range(config.diffusion_steps):
            found = found - pace * (degrees * found - weights @ found - fidelity * source)
        if shares is not None:
            found = found * size_factors(found, shares, config.balance_steps)
    return found


@SOLVERS.register("ptn")
class Ptn(TransductiveHead):
    """Poisson learning, and cuts of the graph with given class sizes."""

    config: PtnConfig

    def scores(self, phi: Tensors, support: Tensor, members: Tensor, queries: Tensor) -> Tensor:
        weights, shots = self.edges(phi, support, queries), support.shape[1]
        present, source = members.sum(1) > 0, sources(members, queries.shape[1])
        found = poisson(weights, source, self.config.poisson_steps)
        scale = self.knob(phi, "scale")
        shares = self._shares(scale * found, members, present)
        found = cut_in_rounds(weights, source, found, shares, self.config, self.knob(phi, "fidelity"))
        return among(scale * found[:, shots:], present)

    def _shares(self, scores: Tensor, members: Tensor, present: Tensor) -> Tensor | None:
        """Return the assumed shares of the classes among support and queries; None where nothing is assumed."""
        shots, queries = members.shape[1], scores.shape[1] - members.shape[1]
        if self.config.marginal == "none" or queries < members.shape[-1]:
            return None
        if self.config.marginal == "estimated":
            shares = estimated_shares(among(scores.detach()[:, shots:], present), present, self.config)
        else:
            shares = present.to(scores.dtype) / present.sum(-1, keepdim=True).clamp_min(1)
        return (members.sum(1) + queries * shares) / (shots + queries)

    def edges(self, phi: Tensors, support: Tensor, queries: Tensor) -> Tensor:
        moved = prepared(support, queries, power=self.knob(phi, "power"), centre=self.config.centre)
        return local_similarity(torch.cat(moved, 1), self.config.neighbours)
