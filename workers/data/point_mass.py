"""Starting states of a point mass, for policies that learn to bring it to the origin.

A task is a region to start from: around a point of the circle of radius 1, at rest. Support and query are independent
draws; what happens from a start is the learner's own to compute (``learners/environments.py``).
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.random import Generator

from metaloom.learners.domains import Int
from metaloom.learners.environments import PointMass
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.solvers.control import CONTROL
from metaloom.search_spaces.sections.tasks import Queries, TaskSettings
from metaloom.workers.data.base import SOURCES, check_at_least
from metaloom.workers.data.generated import Generated, halves

SPREAD = 0.1  # standard deviation of a start about its region's centre


@dataclass(frozen=True)
class PointMassTasks(TaskSettings):
    """Starting states of a point mass that a policy is to bring to the origin; each task is a region to start from.

    Attributes:
        shots: Trajectories of an inner step.
        queries: Starts that the policy is judged from.
    """

    task_kind: ClassVar[str] = CONTROL.name
    shots: Annotated[int, Int(2, 1000)] = 16
    queries: Queries = 16


@SOURCES.register("point_mass")
class PointMassStarts(Generated):
    """Starts around a random point of the circle."""

    name = "point_mass"
    Config = PointMassTasks

    def checked(self, config: PointMassTasks) -> TaskShape:
        check_at_least(self.name, 2, shots=config.shots)
        check_at_least(self.name, 1, queries=config.queries)
        return TaskShape(config.task_kind, (PointMass.states,), PointMass.actions, environment="point_mass")

    def draw(self, generator: Generator) -> Episode:
        """Draw a region, then starts in it; the targets are empty actions, which no learner reads."""
        angle = generator.uniform(0.0, 2 * math.pi)
        shots, queries = self.config.shots, self.config.queries
        centre = np.array([math.cos(angle), math.sin(angle)])
        position = centre + SPREAD * generator.standard_normal((shots + queries, 2))
        states = np.concatenate([position, np.zeros_like(position)], 1).astype(np.float32)
        return halves(torch.from_numpy(states), torch.zeros(shots + queries, PointMass.actions), shots)
