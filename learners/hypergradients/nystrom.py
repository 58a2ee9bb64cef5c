r"""The implicit hypergradient with a low-rank Hessian: no iteration, no step to tune.

Hataya and Yamada, 2023, https://arxiv.org/abs/2302.09726, equations 3 to 6. With H_C the columns of H at k random
coordinates K, and H_K its rows K:

    H ~ H_C H_K^+ H_C^T = U diag(s) U^T,    (H + rho I)^-1 v ~ U diag(1 / (s + rho)) U^T v + (v - U U^T v) / rho

which is the paper's form by Woodbury's identity, without its cancellation at a small rho (U and s from the singular
values of H_C H_K^(-1/2)). With all columns it is exact for H + rho I. One product with H a column, k |theta| memory.
Right where H is near low rank, as in over-parameterized networks; far off where it is not (relative error 84 at
k = 4 and 54 at k = 8 of a full-rank ridge of 12: look at the residual).
"""

from dataclasses import dataclass
from typing import Annotated

import torch

from metaloom.learners.domains import Bounds, Int, Real
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.implicit import Curvature, Implicit, Solved
from metaloom.learners.hypergradients.problem import ESTIMATORS, Problem
from metaloom.learners.tensors import Tensors, flatten, unflatten


@dataclass(frozen=True)
class NystromConfig:
    """The approximation of the Hessian.

    Attributes:
        rank: The rank k of the approximation.
        rho: The damping, which decides what the directions outside the columns count.
    """

    rank: Annotated[int, Int(1, 1000)] = 10
    rho: Annotated[float, Real(1e-6, 10.0, log=True, per=()), Bounds(above=0)] = 0.01


@ESTIMATORS.register("nystrom")
class Nystrom(Implicit):
    """The damped inverse of a Nystrom approximation of a symmetric H; raises LearnerError for negative curvature."""

    Config = NystromConfig
    config: NystromConfig

    def solve(self, curvature: Curvature, right: Tensors, problem: Problem) -> Solved:
        generator, vector, rho = self.generator(problem), flatten(right), self.config.rho
        rank = min(self.config.rank, vector.numel())
        chosen = torch.randperm(vector.numel(), generator=generator, device=generator.device)[:rank].to(vector.device)
        units = (torch.zeros_like(vector).index_fill(0, index, 1.0) for index in chosen)
        # [|theta|, k]
        columns = torch.stack([flatten(curvature.transposed(unflatten(one, right))) for one in units], 1)
        core = columns[chosen]
        values, basis = torch.linalg.eigh((core + core.T) / 2)  # [k], [k, k]
        lowest = float(values[0])
        if lowest + rho < 0:
            raise LearnerError(
                f"outer.hypergradient: nystrom met negative curvature ({lowest:.3g}, with rho {rho:g}): the inner "
                "problem is not convex here, so that the implicit gradient would be wrong; raise inner.proximal or "
                "outer.hypergradient.rho, or use normal_equations or adjoint"
            )
        used = values > torch.finfo(values.dtype).eps * rank * values[-1].abs()
        left, singular, _ = torch.linalg.svd(columns @ (basis[:, used] / values[used].sqrt()), full_matrices=False)
        inside = left.T @ vector
        adjoint = left @ (inside / (singular.square() + rho))
        if left.shape[1] < vector.numel():  # else nothing is outside, and rounding would be divided by rho
            adjoint = adjoint + (vector - left @ inside) / rho
        return unflatten(adjoint, right), {"rank": float(left.shape[1]), "lowest_curvature": lowest}
