r"""Sine regression, the smallest family of tasks that can be meta-learned.

Finn, Abbeel and Levine, 2017, https://arxiv.org/abs/1703.03400, section 5.1:

    y = A sin(x - b),   A ~ U[0.1, 5],   b ~ U[0, pi],   x ~ U[-5, 5]

Predicting 0 has mean squared error 4.25; the best prediction that does not see the task, 3.01.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.random import Generator

from metaloom.learners.domains import Real
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.task_kinds import REGRESSION
from metaloom.search_spaces.sections.tasks import Queries, Shots, TaskSettings
from metaloom.workers.data.base import SOURCES, check_at_least
from metaloom.workers.data.generated import Generated, halves


@dataclass(frozen=True)
class SinusoidTasks(TaskSettings):
    """Regression of y = A sin(x - b), A in [0.1, 5], b in [0, pi], x in [-5, 5] (Finn et al. 2017).

    Attributes:
        noise: Standard deviation of the noise added to the targets of the support set.
    """

    task_kind: ClassVar[str] = REGRESSION.name
    shots: Shots = 10
    queries: Queries = 10
    noise: Annotated[float, Real(0.0, 10.0, per=())] = 0.0


@SOURCES.register("sinusoid")
class Sinusoid(Generated):
    """Sines of random amplitude and phase."""

    name = "sinusoid"
    Config = SinusoidTasks

    def checked(self, config: SinusoidTasks) -> TaskShape:
        check_at_least(self.name, 1, shots=config.shots, queries=config.queries)
        check_at_least(self.name, 0, noise=config.noise)
        return TaskShape(config.task_kind, (1,), 1)

    def draw(self, generator: Generator) -> Episode:
        """Draw amplitude, phase and points; support and query are independent draws."""
        amplitude, phase = generator.uniform(0.1, 5.0), generator.uniform(0.0, math.pi)
        shots, queries = self.config.shots, self.config.queries
        x = generator.uniform(-5.0, 5.0, (shots + queries, 1))
        exact = amplitude * np.sin(x - phase)
        exact[:shots] += self.config.noise * generator.standard_normal((shots, 1))
        return halves(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(exact.astype(np.float32)), shots)
