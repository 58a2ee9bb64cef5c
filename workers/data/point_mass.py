"""Starting states of a point mass, for policies that learn to bring it to the origin.

A task is a region to start from: around a point of the circle of radius 1, at rest. Support and query are independent
draws; what happens from a start is the learner's own to compute (``learners/environments.py``).
"""

import math
from pathlib import Path
from typing import Self

import numpy as np
import torch

from metaloom.learners.environments import PointMass
from metaloom.learners.episode import Episode, TaskShape
from metaloom.search_spaces.tasks import PointMassTasks
from metaloom.workers.data.base import (
    SOURCES,
    SPLITS,
    SampledEpisode,
    Source,
    SourceSummary,
    SplitSummary,
    check_at_least,
    check_split,
)
from metaloom.workers.data.sampler import draw_seed, episode_generator

SPREAD = 0.1  # standard deviation of a start about its region's centre


@SOURCES.register("point_mass")
class PointMassStarts(Source):
    """Endless; the three splits draw different tasks from one distribution."""

    name = "point_mass"
    Config = PointMassTasks

    def __init__(self, config: PointMassTasks, *, seed: int) -> None:
        check_at_least(self.name, 2, shots=config.shots)
        check_at_least(self.name, 1, queries=config.queries)
        self.config, self.seed = config, seed
        self.shape = TaskShape("regression", (PointMass.states,), PointMass.actions, environment="point_mass")

    @classmethod
    def open(cls, config: PointMassTasks, *, seed: int, cache: Path) -> Self:
        """Nothing is kept on disk."""
        return cls(config, seed=seed)

    def episode(self, split: str, index: int) -> SampledEpisode:
        """Draw a region, then starts in it; the targets are empty actions, which no learner reads."""
        check_split(split, index)
        generator = episode_generator(self.seed, split, index)
        angle = generator.uniform(0.0, 2 * math.pi)
        shots, queries = self.config.shots, self.config.queries
        centre = np.array([math.cos(angle), math.sin(angle)])
        position = centre + SPREAD * generator.standard_normal((shots + queries, 2))
        states = np.concatenate([position, np.zeros_like(position)], 1).astype(np.float32)
        x, y = torch.from_numpy(states), torch.zeros(shots + queries, PointMass.actions)
        episode = Episode(x[:shots], y[:shots], x[shots:], y[shots:])
        return SampledEpisode(episode, draw_seed(generator), (index,), ())

    def available(self, split: str) -> int | None:
        """There is no end of regions."""
        check_split(split, 0)
        return None

    def summary(self) -> SourceSummary:
        """All splits are endless."""
        endless = SplitSummary(None, None, None)
        return SourceSummary(self.name, self.shape, dict.fromkeys(SPLITS, endless))
