r"""A core-set: a part of the support set, chosen by a rule, so that training on it is nearly as good.

* ``random``: drawn evenly.
* ``herding`` (Welling, 2009, https://doi.org/10.1145/1553374.1553517; as in iCaRL, Rebuffi et al., 2017,
  https://arxiv.org/abs/1611.07725, algorithm 4): one after another, whatever brings the mean of those chosen
  nearest to the class mean.
* ``k_center`` (Sener and Savarese, 2018, https://arxiv.org/abs/1708.00489, algorithm 1): first the one nearest
  to the class mean, then always the one farthest from those chosen: none is left farther from them than twice what
  the best choice would leave.

Distances are between inputs as they are, class by class; classes share the size as evenly as they can. Nothing
is learned: the rule and the size are for the search.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Generator, Tensor

from metaloom.learners.domains import Choice, Int
from metaloom.learners.episode import Episode
from metaloom.learners.knowledge.distilled_data import DATA, TrainingData
from metaloom.learners.tensors import Tensors

Rule = Callable[[Tensor, int, Generator], Tensor]


def random_rows(x: Tensor, count: int, generator: Generator) -> Tensor:
    """Draw ``count`` of the rows of x [n, d]: [count]."""
    return torch.randperm(len(x), generator=generator, device=generator.device)[:count].to(x.device)


def herded_rows(x: Tensor, count: int, generator: Generator) -> Tensor:
    """Choose ``count`` rows of x [n, d] whose mean stays near the mean of all: [count]."""
    wanted, total = x.mean(0), torch.zeros_like(x[0])
    free = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    chosen: list[Tensor] = []
    for taken in range(1, count + 1):
        gaps = (wanted - (total + x) / taken).square().sum(-1) + free
        best = gaps.argmin()
        chosen.append(best)
        free[best], total = torch.inf, total + x[best]
    return torch.stack(chosen)


def central_rows(x: Tensor, count: int, generator: Generator) -> Tensor:
    """Choose ``count`` rows of x [n, d] that cover the others: [count]."""
    chosen = [(x - x.mean(0)).square().sum(-1).argmin()]
    reach = (x - x[chosen[0]]).square().sum(-1)  # to the nearest one chosen
    reach[chosen[0]] = -1.0  # equal rows are chosen one after another, not one of them twice
    while len(chosen) < count:
        farthest = reach.argmax()
        chosen.append(farthest)
        reach = torch.minimum(reach, (x - x[farthest]).square().sum(-1))
        reach[farthest] = -1.0
    return torch.stack(chosen)


RULES: dict[str, Rule] = {"random": random_rows, "herding": herded_rows, "k_center": central_rows}


@dataclass(frozen=True)
class CoreSetConfig:
    """How many examples are kept, of all classes together, and by which rule.

    Attributes:
        size: How many examples are kept, of all classes together.
        rule: The rule that chooses them.
    """

    size: Annotated[int, Int(1, 10_000, log=True)] = 10
    rule: Annotated[str, Choice(tuple(RULES))] = "herding"


def shares(counts: list[int], size: int) -> list[int]:
    """Divide ``size`` among classes of ``counts`` examples, one each in turn; a class that is used up gives way."""
    taken = [0] * len(counts)
    left = min(size, sum(counts))
    while left:
        for label, count in enumerate(counts):
            if left and taken[label] < count:
                taken[label] += 1
                left -= 1
    return taken


def core_set(x: Tensor, y: Tensor, *, size: int, rule: str, generator: Generator) -> Tensor:
    """Choose rows of x [n, *features] with labels y [n], class by class: [min(size, n)], int64.

    Regression targets (floating, or of more than one dimension) count as one class.
    """
    flat = x.detach().flatten(1)
    whole = y.is_floating_point() or y.ndim > 1
    labels = torch.zeros(len(x), dtype=torch.int64, device=x.device) if whole else y
    groups = [(labels == label).nonzero()[:, 0] for label in range(int(labels.max()) + 1)]
    chosen = [
        group[RULES[rule](flat[group], count, generator)]
        for group, count in zip(groups, shares([len(group) for group in groups], size), strict=True)
        if count
    ]
    return torch.cat(chosen)


@DATA.register("core_set")
class CoreSet(TrainingData):
    """A part of the support set, chosen before the inner loop begins."""

    Config = CoreSetConfig
    config: CoreSetConfig
    numbered = True

    def select(self, episode: Episode, generator: Generator) -> Episode:
        rows = core_set(
            episode.support_x, episode.support_y, size=self.config.size, rule=self.config.rule, generator=generator
        )
        ids = None if episode.sample_ids is None else episode.sample_ids[rows]
        support = replace(episode.support, x=episode.support_x[rows], y=episode.support_y[rows])
        return replace(episode, support=support, sample_ids=ids)

    def batch(self, phi: Tensors, episode: Episode) -> tuple[Tensor, Tensor]:
        return episode.support_x, episode.support_y

    def sample_ids(self, phi: Tensors, episode: Episode) -> Tensor | None:
        return episode.sample_ids
