r"""Soft k-means: class means that the examples without labels refine, each by its shares in the classes.

Ren et al., 2018, https://arxiv.org/abs/1803.00676, equations 3 and 4:

    z_jc = softmax_c(-|h(x_j) - p_c|^2),    p_c <- (sum of labelled h(x_i) of c + sum_j z_jc h(x_j)) / weights

The examples without labels are those that the task gives (``Support.unlabelled``), the queries, or both. With the
former alone each query is predicted on its own: semi-supervised, and no longer transductive. Soft k-means assumes
nothing of the classes' shares, but draws its clusters to equal sizes where they overlap; ``marginal: uniform`` makes
that an assumption, ``estimated`` weighs the classes. Cost: one distance to each class mean and example, an iteration.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from metaloom.learners.domains import Int, Learned, Real
from metaloom.learners.episode import Support, TaskShape
from metaloom.learners.solvers.amortized import Embedding, Outputs
from metaloom.learners.solvers.base import SEMI_SUPERVISED, SOLVERS
from metaloom.learners.solvers.transductive.balancing import BalanceConfig, Marginal, among, balanced
from metaloom.learners.solvers.transductive.base import TransductiveHead, without_padding
from metaloom.learners.solvers.transductive.preparing import class_means, squared_distances
from metaloom.learners.tensors import Tensors


@dataclass(frozen=True)
class SoftKMeansConfig(BalanceConfig):
    """What refines the means, and how.

    Attributes:
        over: The examples whose shares refine the means: those without labels, the queries, or both.
        iterations: Refinements; the paper takes one.
        temperature: What squared distances are divided by before the softmax.
    """

    marginal: Marginal = "none"
    over: Literal["unlabelled", "queries", "both"] = "both"
    iterations: Annotated[int, Int(0, 100)] = 1
    temperature: Annotated[float | Learned, Real(0.01, 100.0, log=True, positive=True)] = 1.0


def refined(
    support: Tensor,
    members: Tensor,
    others: Tensor,
    config: BalanceConfig,
    *,
    iterations: int,
    temperature: float | Tensor,
) -> Tensor:
    """Return the class means [e, ways, d] after so many refinements by the examples without labels [e, m, d]."""
    means, present = class_means(support, members), members.sum(1) > 0
    everything = torch.cat([support, others], 1)
    for _ in range(iterations if others.shape[1] else 0):
        shares = balanced(-squared_distances(others, means) / temperature, present, config)
        means = class_means(everything, torch.cat([members, shares], 1))
    return means


@SOLVERS.register("soft_k_means")
class SoftKMeans(TransductiveHead):
    """Class means refined by the shares of the queries, and of examples without labels, in the classes."""

    config: SoftKMeansConfig
    reads_support = frozenset({"mask", "unlabelled"})

    def __init__(self, config: SoftKMeansConfig, task: TaskShape) -> None:
        super().__init__(config, task)
        if config.over == "unlabelled":
            self.setting = SEMI_SUPERVISED

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        given = without_padding(support)
        more = given.unlabelled if given.unlabelled is not None and self.config.over != "queries" else given.x[:0]
        both = embed.beside(torch.cat([given.x, more]))

        def outputs(query_x: Tensor) -> Tensor:
            features, queries = both(query_x)
            members = self._members(given, features)
            labelled, others = features[: len(members)], features[len(members) :]
            others = others if self.config.over == "unlabelled" else torch.cat([others, queries])
            return self._distances(phi, labelled[None], members[None], others[None], queries[None])[0]

        return outputs

    def scores(self, phi: Tensors, support: Tensor, members: Tensor, queries: Tensor) -> Tensor:
        return self._distances(phi, support, members, queries, queries)

    def _distances(self, phi: Tensors, support: Tensor, members: Tensor, others: Tensor, queries: Tensor) -> Tensor:
        temperature = self.knob(phi, "temperature")
        means = refined(
            support, members, others, self.config, iterations=self.config.iterations, temperature=temperature
        )
        return among(-squared_distances(queries, means) / temperature, members.sum(1) > 0)
