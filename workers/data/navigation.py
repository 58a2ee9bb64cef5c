"""Two-dimensional navigation: a task is a goal that the policy does not see."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.random import Generator

from metaloom.learners.domains import Bounds, Int, Real
from metaloom.learners.environments import Navigation
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.solvers.control import CONTROL
from metaloom.search_spaces.sections.tasks import Queries, TaskSettings
from metaloom.workers.data.base import SOURCES
from metaloom.workers.data.generated import Generated, halves

Trajectories = Annotated[int, Int(2, 1000), Bounds(at_least=2)]
Horizon = Annotated[int, Int(1, 1000), Bounds(at_least=1)]


@dataclass(frozen=True)
class NavigationTasks(TaskSettings):
    """A point at the origin is to reach a goal; each task is a goal (Finn et al. 2017).

    Attributes:
        shots: Trajectories of an inner step.
        queries: Trajectories that the policy is judged by.
        extent: Goals are uniform in the square of this half width about the origin.
        horizon: Steps of a trajectory.
        speed: The largest velocity along each axis, which is the unit of an action.
        reach: A trajectory ends within this distance of the goal.
    """

    task_kind: ClassVar[str] = CONTROL.name
    shots: Trajectories = 20
    queries: Queries = 20
    extent: Annotated[float, Real(0.01, 100.0, log=True, per=()), Bounds(above=0)] = 0.5
    horizon: Horizon = 100
    speed: Annotated[float, Real(0.001, 10.0, log=True, per=()), Bounds(above=0)] = 0.1
    reach: Annotated[float, Real(0.0, 1.0, per=()), Bounds(at_least=0)] = 0.01


@SOURCES.register("navigation")
class NavigationGoals(Generated):
    """Goals in the plane, for policies that find out by their rewards where theirs is.

    All trajectories begin at the origin. Support and query have the same goal, and exploration of their own; the
    learner computes the trajectories (``learners/environments.py``).
    """

    name = "navigation"
    Config = NavigationTasks

    def checked(self, config: NavigationTasks) -> TaskShape:
        settings = {"horizon": config.horizon, "speed": config.speed, "reach": config.reach}
        return TaskShape(
            config.task_kind,
            (Navigation.states,),
            Navigation.actions,
            environment="navigation",
            environment_settings=settings,
            parameters=("goal_x", "goal_y"),
        )

    def draw(self, generator: Generator) -> Episode:
        """Draw a goal."""
        count = self.config.shots + self.config.queries
        goal = generator.uniform(-self.config.extent, self.config.extent, 2).astype(np.float32)
        starts, goals = torch.zeros(count, Navigation.states), torch.from_numpy(np.tile(goal, (count, 1)))
        return halves(starts, goals, self.config.shots)
