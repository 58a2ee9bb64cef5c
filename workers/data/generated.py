"""What sources have in common whose tasks are drawn from a formula: they keep nothing, and have no end."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, Self

from numpy.random import Generator
from torch import Tensor

from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.workers.data.base import SPLITS, SampledEpisode, Source, SourceSummary, SplitSummary, check_split
from metaloom.workers.data.sampler import draw_seed, episode_generator


class Generated(Source):
    """Endless; the three splits draw different tasks from one distribution."""

    def __init__(self, config: Any, *, seed: int) -> None:
        self.config, self.seed = config, seed
        self.shape = self.checked(config)

    @abstractmethod
    def checked(self, config: Any) -> TaskShape:
        """Return what the tasks look like; raises DataError for settings that make none."""

    @abstractmethod
    def draw(self, generator: Generator) -> Episode:
        """Draw one task with its support and query examples."""

    @classmethod
    def open(cls, config: Any, *, seed: int, cache: Path) -> Self:
        """Nothing is kept on disk."""
        return cls(config, seed=seed)

    def episode(self, split: str, index: int) -> SampledEpisode:
        """Draw task ``index``, which stands for its own class."""
        check_split(split, index)
        generator = episode_generator(self.seed, split, index)
        return SampledEpisode(self.draw(generator), draw_seed(generator), (index,), ())

    def available(self, split: str) -> int | None:
        """There is no end of tasks."""
        check_split(split, 0)
        return None

    def summary(self) -> SourceSummary:
        """All splits are endless."""
        endless = SplitSummary(None, None, None)
        return SourceSummary(self.name, self.shape, dict.fromkeys(SPLITS, endless))


def halves(x: Tensor, y: Tensor, shots: int) -> Episode:
    """Make the first ``shots`` examples the support and the others the query."""
    return Episode(Support(x[:shots], y[:shots]), x[shots:], y[shots:])
