"""Class prototypes: Snell et al., 2017, https://arxiv.org/abs/1703.05175, equations 1 and 2."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.domains import Learned, Real
from metaloom.learners.episode import Episode, Support
from metaloom.learners.solvers.amortized import AmortizedSolver, Embedding, Outputs
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.metric.comparisons import COSINE_SCALE, kept, spread, square_distances
from metaloom.learners.tensors import Tensors


def class_means(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Average the features [n, d] of each class: [ways, d]."""
    members = F.one_hot(labels, ways).to(features.dtype)  # [n, ways]
    # a class without an example, of a single task's batch, has the mean 0
    return (members.T @ features) / members.sum(0).clamp_min(1).unsqueeze(-1)


@dataclass(frozen=True)
class PrototypesConfig:
    """How a query is compared with the class means.

    Attributes:
        metric: Between a query and the class means.
        temperature: What the scores are divided by before the softmax.
    """

    metric: Literal["euclidean", "cosine"] = "euclidean"
    temperature: Annotated[float | Learned, Real(0.01, 100.0, log=True, positive=True)] = 1.0


@SOLVERS.register("prototypes")
class Prototypes(AmortizedSolver):
    """The softmax over negative squared distances to class means; 10 times the cosine for ``cosine``."""

    Config = PrototypesConfig
    config: PrototypesConfig
    needs_classes = True
    reads_support = frozenset({"mask"})

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        there = kept(support)
        embed_both = embed.beside(there.x)

        def outputs(query_x: Tensor) -> Tensor:
            features, queries = embed_both(query_x)
            return self.logits(phi, queries, class_means(features, there.y, self.task.outputs))

        return outputs

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Show the class means among the examples that they are compared with."""
        there = kept(episode.support)
        features, queries = embed.beside(there.x)(episode.query_x)
        means = class_means(features, there.y, self.task.outputs)
        return {"support": spread(features, episode.support), "queries": queries, "prototypes": means}

    def logits(self, phi: Tensors, queries: Tensor, prototypes: Tensor) -> Tensor:
        """Compare embedded queries [n, d] with prototypes [ways, d]: [n, ways]."""
        temperature = self.knob(phi, "temperature")
        if self.config.metric == "cosine":
            return COSINE_SCALE * F.normalize(queries, dim=-1) @ F.normalize(prototypes, dim=-1).T / temperature
        # |q|^2 is the same for every class and drops out of the softmax, but keeps the logits small
        return -square_distances(queries, prototypes) / temperature
