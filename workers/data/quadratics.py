r"""Random quadratics, on which optimizers are learned and compared.

Andrychowicz et al., 2016, https://arxiv.org/abs/1606.04474, section 3.1:

    f(x) = |W x - y|^2,    W in R^{d x d} and y in R^d from N(0, 1),    x_0 = 0

As a regression: the rows of sqrt(d) W are the examples and the entries of sqrt(d) y their targets, so that the mean
squared error of the linear model x (``architecture: linear``) is f(x) itself. The query set is the support set: an
optimizer is judged by the very function that it minimizes. Several functions stand side by side as blocks of one
matrix, and f is their sum: a coordinatewise optimizer then moves each as if it were alone.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.random import Generator

from metaloom.learners.domains import Int
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.task_kinds import REGRESSION
from metaloom.search_spaces.sections.tasks import TaskSettings
from metaloom.workers.data.base import SOURCES, check_at_least
from metaloom.workers.data.generated import Generated


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
    """Endless; the three splits draw different functions from one distribution."""

    name = "quadratics"
    Config = QuadraticTasks

    def checked(self, config: QuadraticTasks) -> TaskShape:
        check_at_least(self.name, 1, dimensions=config.dimensions, functions=config.functions)
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
