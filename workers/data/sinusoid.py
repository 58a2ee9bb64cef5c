r"""Sine regression, the smallest family of tasks that can be meta-learned.

Finn, Abbeel and Levine, 2017, https://arxiv.org/abs/1703.03400, section 5.1:

    y = A sin(x - b),   A ~ U[0.1, 5],   b ~ U[0, pi],   x ~ U[-5, 5]

Predicting 0 has mean squared error 4.25; the best prediction that does not see the task, 3.01.
"""

import math
from pathlib import Path
from typing import Self

import numpy as np
import torch

from metaloom.learners.episode import Episode, TaskShape
from metaloom.search_spaces.tasks import SinusoidTasks
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


@SOURCES.register("sinusoid")
class Sinusoid(Source):
    """Endless; the three splits draw different tasks from one distribution."""

    name = "sinusoid"
    Config = SinusoidTasks

    def __init__(self, config: SinusoidTasks, *, seed: int) -> None:
        check_at_least(self.name, 1, shots=config.shots, queries=config.queries)
        check_at_least(self.name, 0, noise=config.noise)
        self.config, self.seed = config, seed
        self.shape = TaskShape("regression", (1,), 1)

    @classmethod
    def open(cls, config: SinusoidTasks, *, seed: int, cache: Path) -> Self:
        """Nothing is kept on disk."""
        return cls(config, seed=seed)

    def episode(self, split: str, index: int) -> SampledEpisode:
        """Draw amplitude, phase and points; support and query are independent draws."""
        check_split(split, index)
        generator = episode_generator(self.seed, split, index)
        amplitude, phase = generator.uniform(0.1, 5.0), generator.uniform(0.0, math.pi)
        shots, queries = self.config.shots, self.config.queries
        x = generator.uniform(-5.0, 5.0, (shots + queries, 1))
        exact = amplitude * np.sin(x - phase)
        exact[:shots] += self.config.noise * generator.standard_normal((shots, 1))
        y = torch.from_numpy(exact.astype(np.float32))
        inputs = torch.from_numpy(x.astype(np.float32))
        episode = Episode(inputs[:shots], y[:shots], inputs[shots:], y[shots:])
        return SampledEpisode(episode, draw_seed(generator), (index,), ())

    def available(self, split: str) -> int | None:
        """There is no end of sines."""
        check_split(split, 0)
        return None

    def summary(self) -> SourceSummary:
        """All splits are endless."""
        endless = SplitSummary(None, None, None)
        return SourceSummary(self.name, self.shape, dict.fromkeys(SPLITS, endless))
