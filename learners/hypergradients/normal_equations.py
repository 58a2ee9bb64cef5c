r"""The implicit hypergradient for an inner problem that is not convex, or whose H is not symmetric.

Conjugate gradient on the normal equations (Hestenes and Stiefel, 1952, section 10), as in hypertorch's
``CG_normaleq`` (Grazzi et al., 2020, https://arxiv.org/abs/2006.16218):

    H^T q = v   <=>   (H H^T) q = H v

H H^T is positive semi-definite whatever H is: example weights that depend on the losses make H asymmetric, and a
saddle makes it indefinite. Twice the products of ``conjugate_gradient`` an iteration, and the square of its
condition number.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator

from metaloom.learners.domains import Int
from metaloom.learners.hypergradients.implicit import Curvature, Implicit
from metaloom.learners.hypergradients.problem import ESTIMATORS
from metaloom.learners.tensors import Tensors, dot


@dataclass(frozen=True)
class NormalEquationsConfig:
    """Iterations of two products each, and the relative residual (of H v) at which to stop before.

    Attributes:
        iterations: Each of two products.
        tolerance: The relative residual at which it stops.
    """

    iterations: Annotated[int, Int(1, 500)] = 10
    tolerance: float = 1e-12


@ESTIMATORS.register("normal_equations")
class NormalEquations(Implicit):
    """Least squares |H^T q - v|^2 by conjugate gradient, never forming H H^T."""

    Config = NormalEquationsConfig
    config: NormalEquationsConfig

    def solve(
        self, curvature: Curvature, right: Tensors, generator: Generator | None
    ) -> tuple[Tensors, dict[str, float]]:
        found = {name: torch.zeros_like(value) for name, value in right.items()}
        residual = dict(right)  # v - H^T q
        slope = curvature(residual)  # H (v - H^T q): minus the gradient of |H^T q - v|^2 / 2
        direction, square = dict(slope), dot(slope, slope)
        goal, iterations = square * self.config.tolerance**2, 0
        while iterations < self.config.iterations and square > goal:
            image = curvature.transposed(direction)
            size = dot(image, image)
            if size == 0:
                break
            length = square / size
            found = {n: value + length * direction[n] for n, value in found.items()}
            residual = {n: value - length * image[n] for n, value in residual.items()}
            slope = curvature(residual)
            before, square = square, dot(slope, slope)
            direction = {n: slope[n] + square / before * value for n, value in direction.items()}
            iterations += 1
        return found, {"iterations": float(iterations)}
