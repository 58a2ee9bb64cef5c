r"""A core-set: a part of the support set, chosen by a rule, so that training on it is nearly as good.

* ``random``: drawn evenly.
* ``herding`` (Welling, 2009, https://doi.org/10.1145/1553374.1553517; as in iCaRL, Rebuffi et al., 2017,
  https://arxiv.org/abs/1611.07725, algorithm 4): one after another, the example that brings the mean of those chosen
  nearest to the class mean.
* ``k_center`` (Sener and Savarese, 2018, https://arxiv.org/abs/1708.00489, algorithm 1): first the example nearest to
  the class mean, then always the one farthest from those chosen. The largest distance to the nearest chosen example is
  at most twice the smallest possible.

Distances are between inputs as they are, class by class; the size is divided among the classes as evenly as possible.
Nothing is learned: the rule and the size are for the search.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Generator, Tensor

from metaloom.learners.domains import Choice, Int
from metaloom.learners.episode import Episode
from metaloom.learners.knowledge.distilled_data import DATA, TrainingData

Rule = Callable[[Tensor, int, Generator], Tensor]


def random_rows(x: Tensor, count: int, generator: Generator) -> Tensor:
    """Draw ``count`` of the rows of x [n, d]: [count]."""
    return torch.randperm(len(x), generator=generator, device=generator.device)[:count].to(x.device)


def herded_rows(x: Tensor, count: int, generator: Generator) -> Tensor:
    """Choose ``count`` rows of x [n, d] whose mean stays near the mean of all: [count]."""
    mean, total = x.mean(0), torch.zeros_like(x[0])
    taken = torch.zeros(len(x), dtype=x.dtype, device=x.device)  # infinite once a row is chosen
    chosen: list[Tensor] = []
    for size in range(1, count + 1):
        best = ((mean - (total + x) / size).square().sum(-1) + taken).argmin()
        chosen.append(best)
        taken[best], total = torch.inf, total + x[best]
    return torch.stack(chosen)


def central_rows(x: Tensor, count: int, generator: Generator) -> Tensor:
    """Choose ``count`` rows of x [n, d] that cover the others: [count]."""
    chosen = [(x - x.mean(0)).square().sum(-1).argmin()]
    distance = torch.full_like(x[:, 0], torch.inf)  # to the nearest one chosen
    while True:
        distance = torch.minimum(distance, (x - x[chosen[-1]]).square().sum(-1))
        distance[chosen[-1]] = -1.0  # equal rows are chosen one after another, not one of them twice
        if len(chosen) == count:
            return torch.stack(chosen)
        chosen.append(distance.argmax())


RULES: dict[str, Rule] = {"random": random_rows, "herding": herded_rows, "k_center": central_rows}


@dataclass(frozen=True)
class CoreSetConfig:
    """What is kept.

    Attributes:
        size: How many examples are kept, of all classes together.
        rule: The rule that chooses them.
    """

    size: Annotated[int, Int(1, 10_000, log=True)] = 10
    rule: Annotated[str, Choice(tuple(RULES))] = "herding"


def shares(counts: list[int], size: int) -> list[int]:
    """Divide ``size`` among classes of ``counts`` examples, one each in turn until a class is used up."""
    turns = sorted((turn, label) for label, count in enumerate(counts) for turn in range(min(count, size)))
    labels = [label for _, label in turns[:size]]
    return [labels.count(label) for label in range(len(counts))]


def core_set(x: Tensor, y: Tensor, *, size: int, rule: str, generator: Generator) -> Tensor:
    """Choose rows of x [n, *features] with labels y [n], class by class: [min(size, n)], int64.

    Regression targets (floating, or of more than one dimension) count as one class.
    """
    flat = x.detach().flatten(1)
    labels = torch.zeros_like(flat[:, 0], dtype=torch.int64) if y.is_floating_point() or y.ndim > 1 else y
    groups = [(labels == label).nonzero()[:, 0] for label in range(int(labels.max()) + 1)]
    counts = zip(groups, shares([len(group) for group in groups], size), strict=True)
    return torch.cat([group[RULES[rule](flat[group], count, generator)] for group, count in counts if count])


@DATA.register("core_set")
class CoreSet(TrainingData):
    """A part of the support set, chosen before the inner loop begins."""

    config: CoreSetConfig
    numbered = True

    def select(self, episode: Episode, generator: Generator) -> Episode:
        x, y, ids = episode.support_x, episode.support_y, episode.sample_ids
        rows = core_set(x, y, size=self.config.size, rule=self.config.rule, generator=generator)
        support = replace(episode.support, x=x[rows], y=y[rows])
        return replace(episode, support=support, sample_ids=None if ids is None else ids[rows])
