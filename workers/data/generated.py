"""Sources whose tasks are drawn from a formula: nothing is stored, and the tasks are endless."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from metaloom.learners import PROBLEMS
from metaloom.learners.domains import Bounds, Int, Real
from metaloom.learners.environments import PointMass
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.registry import NotRegistered
from metaloom.learners.solvers.control import CONTROL
from metaloom.learners.task_kinds import REGRESSION
from metaloom.search_spaces.sections.tasks import Queries, Shots, TaskSettings
from metaloom.workers.data.base import SOURCES, DataError, SampledEpisode, Source, check_split
from metaloom.workers.data.sampler import draw_seed, episode_generator

SPREAD = 0.1  # standard deviation of a point mass's start about its region's centre


class Generated(Source):
    """Endless; the three splits draw different tasks from one distribution."""

    def __init__(self, config: Any, *, seed: int) -> None:
        self.config, self.seed = config, seed
        self.shape = self.checked(config)

    @abstractmethod
    def checked(self, config: Any) -> TaskShape:
        """Return the shape of the tasks; raises DataError for settings that make none."""

    @abstractmethod
    def draw(self, generator: Generator) -> Episode:
        """Draw one task with its support and query examples."""

    @classmethod
    def open(cls, config: Any, *, seed: int, cache: Path) -> Self:
        return cls(config, seed=seed)

    def episode(self, split: str, index: int) -> SampledEpisode:
        """Draw task ``index``, whose class id is its index."""
        check_split(split, index)
        generator = episode_generator(self.seed, split, index)
        return SampledEpisode(self.draw(generator), draw_seed(generator), (index,), ())


def halves(x: Tensor, y: Tensor, shots: int) -> Episode:
    """Make the first ``shots`` examples the support and the others the query."""
    return Episode(Support(x[:shots], y[:shots]), x[shots:], y[shots:])


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
    """Sine regression, the smallest family of tasks that can be meta-learned.

    Finn, Abbeel and Levine, 2017, https://arxiv.org/abs/1703.03400, section 5.1:

        y = A sin(x - b),   A ~ U[0.1, 5],   b ~ U[0, pi],   x ~ U[-5, 5]

    Predicting 0 has mean squared error 4.25; the best prediction that does not see the task, 3.01.
    """

    name = "sinusoid"
    Config = SinusoidTasks

    def checked(self, config: SinusoidTasks) -> TaskShape:
        return TaskShape(config.task_kind, (1,), 1)

    def draw(self, generator: Generator) -> Episode:
        """Draw amplitude, phase and points; support and query are independent draws."""
        amplitude, phase = generator.uniform(0.1, 5.0), generator.uniform(0.0, math.pi)
        shots, queries = self.config.shots, self.config.queries
        x = generator.uniform(-5.0, 5.0, (shots + queries, 1))
        exact = amplitude * np.sin(x - phase)
        exact[:shots] += self.config.noise * generator.standard_normal((shots, 1))
        return halves(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(exact.astype(np.float32)), shots)


@dataclass(frozen=True)
class QuadraticTasks(TaskSettings):
    """Minimizing f(x) = |W x - y|^2 with W and y from N(0, 1), for learned optimizers (Andrychowicz et al. 2016).

    Attributes:
        dimensions: Of x and of y.
        functions: How many are minimized side by side, as one sum over their own x: a batch of functions.
    """

    task_kind: ClassVar[str] = REGRESSION.name
    dimensions: Annotated[int, Int(1, 1000, log=True)] = 10
    functions: Annotated[int, Int(1, 1000, log=True)] = 1


@SOURCES.register("quadratics")
class Quadratics(Generated):
    """Random quadratics, on which optimizers are learned and compared.

    Andrychowicz et al., 2016, https://arxiv.org/abs/1606.04474, section 3.1:

        f(x) = |W x - y|^2,    W in R^{d x d} and y in R^d from N(0, 1),    x_0 = 0

    As a regression: the rows of sqrt(d) W are the examples and the entries of sqrt(d) y their targets, so that the mean
    squared error of the linear model x (``architecture: linear``) is f(x) itself. The query set is the support set: an
    optimizer is judged by the very function that it minimizes. Several functions are blocks of one matrix, and f is
    their sum: a coordinatewise optimizer then moves each as if it were alone.
    """

    name = "quadratics"
    Config = QuadraticTasks

    def checked(self, config: QuadraticTasks) -> TaskShape:
        return TaskShape(config.task_kind, (config.functions * config.dimensions,), 1)

    def draw(self, generator: Generator) -> Episode:
        """Draw W and y of each function."""
        size, functions = self.config.dimensions, self.config.functions
        scaled = math.sqrt(functions * size) * generator.standard_normal((functions, size, size + 1))
        drawn = torch.from_numpy(scaled.astype(np.float32))
        matrix = torch.zeros(functions, size, functions, size)
        matrix[range(functions), :, range(functions)] = drawn[..., :size]
        matrix, target = matrix.reshape(functions * size, functions * size), drawn[..., size:].reshape(-1, 1)
        return Episode(Support(matrix, target), matrix, target)


@dataclass(frozen=True)
class PointMassTasks(TaskSettings):
    """Starting states of a point mass that a policy is to bring to the origin; each task is a region to start from.

    Attributes:
        shots: Trajectories of an inner step.
        queries: Starts that the policy is judged from.
    """

    task_kind: ClassVar[str] = CONTROL.name
    shots: Annotated[int, Int(2, 1000), Bounds(at_least=2)] = 16
    queries: Queries = 16


@SOURCES.register("point_mass")
class PointMassStarts(Generated):
    """Starting states of a point mass, for policies that learn to bring it to the origin.

    A task is a region to start from: around a point of the circle of radius 1, at rest. Support and query are
    independent draws; the learner computes the trajectories (``learners/environments.py``).
    """

    name = "point_mass"
    Config = PointMassTasks

    def checked(self, config: PointMassTasks) -> TaskShape:
        return TaskShape(config.task_kind, (PointMass.states,), PointMass.actions, environment="point_mass")

    def draw(self, generator: Generator) -> Episode:
        """Draw a region, then starts in it; the targets are empty actions, which no learner reads."""
        angle = generator.uniform(0.0, 2 * math.pi)
        shots, queries = self.config.shots, self.config.queries
        centre = np.array([math.cos(angle), math.sin(angle)])
        position = centre + SPREAD * generator.standard_normal((shots + queries, 2))
        states = np.concatenate([position, np.zeros_like(position)], 1).astype(np.float32)
        return halves(torch.from_numpy(states), torch.zeros(shots + queries, PointMass.actions), shots)


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
    """A user's own bilevel problem: an episode is the seed from which the problem draws its data."""

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
