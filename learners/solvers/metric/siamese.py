r"""Siamese networks: Koch, Zemel and Salakhutdinov, 2015, "Siamese neural networks for one-shot image recognition".

    p(x, x') = sigmoid(alpha . |f(x) - f(x')| + b)            the probability that both are of one class
    loss     = -[same] log p - [different] log(1 - p)         over pairs

The pairs of an episode are those of a query and a support example. As in the paper, pairs of one class and of two
classes count alike: each kind's mean loss has its share, of which ``share`` is that of one class. A query's class is
that of the most similar support example; with several examples a class, that of the largest mean (or maximum) of the
logits alpha . |f(x) - f(x')| + b. Their softmax is the probability of each class if exactly one is the query's: P(c) is
proportional to p_c / (1 - p_c).
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Bounds, Real
from metaloom.learners.episode import Episode, Support
from metaloom.learners.networks.base import Network
from metaloom.learners.solvers.amortized import AmortizedSolver, Embedding, Judged, Outputs
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.metric.comparisons import ABSENT, kept, spread
from metaloom.learners.tensors import Tensors, one_hot

IMPORTANCE, BIAS = "importance", "bias"


@dataclass(frozen=True)
class SiameseConfig:
    """How pairs are weighed, and what the pairs with one class make of it.

    Attributes:
        share: The share of the pairs of one class in the loss, of any number of them.
        shots: A class's logit, from those of its support examples.
    """

    share: Annotated[float, Real(0.05, 0.95, per=()), Bounds(above=0, below=1)] = 0.5
    shots: Literal["mean", "max"] = "mean"


@SOLVERS.register("siamese")
class Siamese(AmortizedSolver):
    """The class of the most similar support examples, by a learned weighted L1 distance."""

    config: SiameseConfig
    learns = True
    needs_classes = True
    reads_support = frozenset({"mask"})

    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        """Draw alpha, uniform in [-2 / sqrt(width), 0]: at the start a larger difference is less similar."""
        width = math.prod(features)
        weight = torch.empty(width).uniform_(-2 / math.sqrt(width), 0, generator=generator)
        return {IMPORTANCE: weight, BIAS: torch.zeros(())}

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        there = kept(support)
        embed_both = embed.beside(there.x)
        return lambda query_x: self.by_class(self.logits(phi, *embed_both(query_x)), there.y)

    def logits(self, phi: Tensors, features: Tensor, queries: Tensor) -> Tensor:
        """Return the logit of each pair of queries [queries, d] and features [n, d]: [queries, n]."""
        return (queries.unsqueeze(1) - features).abs() @ phi[IMPORTANCE] + phi[BIAS]

    def by_class(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return each class's logit [queries, ways], from those of pairs [queries, n] and the support labels [n]."""
        members = one_hot(labels, self.task.outputs, logits)  # [n, ways]
        if self.config.shots == "max":
            each = torch.where(members.T.bool(), logits.unsqueeze(1), ABSENT)  # [queries, ways, n]
            return each.amax(-1)
        counts = members.sum(0)
        return torch.where(counts > 0, logits @ members / counts.clamp_min(1), ABSENT)

    def loss(self, phi: Tensors, embed: Embedding, episode: Episode) -> Judged:
        """Return the verification loss of all pairs of a query and a support example."""
        there = kept(episode.support)
        logits = self.logits(phi, *embed.beside(there.x)(episode.query_x))
        same = (episode.query_y.unsqueeze(1) == there.y).to(logits.dtype)  # [queries, n]
        mine, others = (
            (pairs * F.softplus(sign * logits)).sum() / pairs.sum().clamp_min(1)
            for pairs, sign in ((same, -1), (1 - same, 1))
        )
        found = self.by_class(logits.detach(), there.y)
        score = self.task.task_kind.score(found, episode.query_y)
        return Judged(self.config.share * mine + (1 - self.config.share) * others, score)

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Show each class's logit, and the features that are compared."""
        there = kept(episode.support)
        features, queries = embed.beside(there.x)(episode.query_x)
        relation = self.by_class(self.logits(phi, features, queries), there.y)
        return {"relation": relation, "support": spread(features, episode.support), "queries": queries}
