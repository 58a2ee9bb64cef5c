r"""Random quadratics, on which optimizers are learned and compared.

Andrychowicz et al., 2016, https://arxiv.org/abs/1606.04474, section 3.1:

    f(x) = |W x - y|^2,    W in R^{d x d} and y in R^d from N(0, 1),    x_0 = 0

As a regression: the rows of sqrt(d) W are the examples and the entries of sqrt(d) y their targets, so that the mean
squared error of the linear model x (``architecture: linear``) is f(x) itself. The query set is the support set: an
optimizer is judged by the very function that it minimizes. Several functions stand side by side as blocks of one
matrix, and f is their sum: a coordinatewise optimizer then moves each as if it were alone.
"""

import math
from pathlib import Path
from typing import Self

import numpy as np
import torch

from metaloom.learners.episode import Episode, TaskShape
from metaloom.search_spaces.tasks import QuadraticTasks
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


@SOURCES.register("quadratics")
class Quadratics(Source):
    """Endless; the three splits draw different functions from one distribution."""

    name = "quadratics"
    Config = QuadraticTasks

    def __init__(self, config: QuadraticTasks, *, seed: int) -> None:
        check_at_least(self.name, 1, dimensions=config.dimensions, functions=config.functions)
        self.config, self.seed = config, seed
        self.shape = TaskShape("regression", (config.functions * config.dimensions,), 1)

    @classmethod
    def open(cls, config: QuadraticTasks, *, seed: int, cache: Path) -> Self:
        """Nothing is kept on disk."""
        return cls(config, seed=seed)

    def episode(self, split: str, index: int) -> SampledEpisode:
        """Draw W and y of each function."""
        check_split(split, index)
        generator = episode_generator(self.seed, split, index)
        size, functions = self.config.dimensions, self.config.functions
        scaled = math.sqrt(functions * size) * generator.standard_normal((functions, size, size + 1))
        drawn = torch.from_numpy(scaled.astype(np.float32))
        matrix = torch.zeros(functions, size, functions, size)
        matrix[range(functions), :, range(functions)] = drawn[..., :size]
        matrix, target = matrix.reshape(functions * size, functions * size), drawn[..., size:].reshape(-1, 1)
        return SampledEpisode(Episode(matrix, target, matrix, target), draw_seed(generator), (index,), ())

    def available(self, split: str) -> int | None:
        """There is no end of functions."""
        check_split(split, 0)
        return None

    def summary(self) -> SourceSummary:
        """All splits are endless."""
        endless = SplitSummary(None, None, None)
        return SourceSummary(self.name, self.shape, dict.fromkeys(SPLITS, endless))
