"""Episodes of features for the transductive heads, and the heads without a network before them."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.build import make_config
from metaloom.learners.episode import TaskShape
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.transductive import TransductiveHead
from metaloom.testing.problems import seeded


class Features(NamedTuple):
    """Features of some episodes: support [e, s, d], labels as one-hot rows [e, s, ways], queries [e, q, d]."""

    support: Tensor
    members: Tensor
    queries: Tensor
    query_labels: Tensor


def features(
    *,
    episodes: int = 1,
    ways: int = 3,
    shots: int = 2,
    queries: tuple[int, ...] = (4, 4, 4),
    width: int = 7,
    apart: float = 1.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Features:
    """Draw non-negative features, as a ReLU's, whose classes lie ``apart``; ``queries`` of each class."""
    generator = seeded(seed)
    centres = apart * torch.rand(episodes, ways, width, generator=generator, dtype=dtype)
    labels, asked = (
        torch.arange(ways).repeat_interleave(torch.tensor(counts)) for counts in ((shots,) * ways, queries)
    )

    def near(chosen: Tensor) -> Tensor:
        noise = torch.rand(episodes, len(chosen), width, generator=generator, dtype=dtype)
        return centres[:, chosen] + 0.5 * noise

    members = F.one_hot(labels, ways).to(dtype).expand(episodes, -1, -1)
    return Features(near(labels), members, near(asked), asked)


def head(name: str, *, ways: int = 3, width: int = 7, **settings: Any) -> TransductiveHead:
    """Return a head with these settings."""
    solver = SOLVERS[name]
    config = make_config(solver.Config, settings, "learner.prediction")
    made = solver(config, TaskShape("classification", (width,), ways, classes=9))
    assert isinstance(made, TransductiveHead)
    return made


def scores(made: TransductiveHead, given: Features) -> Tensor:
    """Return the queries' scores [e, q, ways]."""
    return made.scores({}, given.support, given.members, given.queries)
