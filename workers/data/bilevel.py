"""Bilevel problems of one's own: an episode is the seed from which the problem draws its data."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from numpy.random import Generator

from metaloom.learners import PROBLEMS
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.registry import NotRegistered
from metaloom.learners.task_kinds import REGRESSION
from metaloom.search_spaces.sections.tasks import TaskSettings
from metaloom.workers.data.base import SOURCES, DataError
from metaloom.workers.data.generated import Generated
from metaloom.workers.data.sampler import draw_seed


@dataclass(frozen=True)
class BilevelTasks(TaskSettings):
    """A bilevel problem of one's own, posed with ``metaloom.bilevel`` (docs/bilevel.md).

    Attributes:
        problem: Its name in ``metaloom.learners.PROBLEMS``, where a plugin package registers it.
    """

    task_kind: ClassVar[str] = REGRESSION.name
    problem: str


@SOURCES.register("bilevel")
class BilevelProblem(Generated):
    """Endless; the three splits draw different data."""

    name = "bilevel"
    Config = BilevelTasks

    def checked(self, config: BilevelTasks) -> TaskShape:
        try:
            PROBLEMS[config.problem]
        except NotRegistered as error:
            raise DataError(f"tasks.problem: {error}") from error
        return TaskShape(REGRESSION.name, (1,), 1, problem=config.problem)

    def draw(self, generator: Generator) -> Episode:
        """Draw the seed of an episode's data; it has no examples."""
        nothing = torch.zeros(1, 1)
        return Episode(Support(nothing, nothing), nothing, nothing, sample_ids=torch.tensor([draw_seed(generator)]))
