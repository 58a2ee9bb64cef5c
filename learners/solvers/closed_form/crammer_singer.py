r"""The dual of the multi-class support vector machine, and its derivative at the solution.

Crammer and Singer, 2001, https://jmlr.org/papers/v2/crammer01a.html. K is the kernel of the n support examples and Y
their one-hot labels. With alpha = C Y - beta, each example's beta is C times a distribution over the classes:

    minimize   1/2 sum_k alpha_k^T (K + delta I) alpha_k - sum_n alpha_{n, y_n}
    subject to beta >= 0,  sum_k beta_{n, k} = C

delta > 0 makes the solution unique; at delta -> 0 it is the paper's dual. K is the same for every class, so each Newton
step of the interior point method solves one n x n system per class, and one for the multipliers of the equalities.

The interior point tells which beta are 0. Given them, the others solve a linear system, which is solved again with a
graph: the value is the exact solution, and its derivative the implicit one of the conditions of Karush, Kuhn and
Tucker. It is exact wherever the set of zeros is the same around the features. On the border of two such regions beta is
continuous but has a kink, and the derivative is that of one side.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from metaloom.learners.errors import LearnerError

MOST_STEPS = 60  # of the interior point; 8 to 20 are usual
MOST_EXCHANGES = 20  # of coordinates that the interior point took for zero, or not
GAP = 1e-14  # the mean of beta z at which the interior point ends
SOLVED = 1e-6  # what a condition may be missed by, in the units of the solution
CENTRING = 0.1  # the share of the gap that a step aims at
BACK = 0.99  # how far to the border a step goes


class Solved(NamedTuple):
    """A solution of the dual.

    Attributes:
        alpha: [classes, n], differentiable.
        free: [classes, n]: where beta is not 0.
        multipliers: [classes, n]: of beta >= 0; 0 where it is free.
    """

    alpha: Tensor
    free: Tensor
    multipliers: Tensor


def solve_dual(kernel: Tensor, labels: Tensor, cost: float | Tensor) -> Solved:
    """Solve the dual to machine precision.

    It is solved in units of its own, in which the mean of the kernel's diagonal is 1, and so is the smaller of C and
    the margin: what is zero is then found alike for features and costs of any size.

    Args:
        kernel: K + delta I, [n, n], positive definite, float64.
        labels: Y, [classes, n], float64.
        cost: C.

    Raises:
        LearnerError: The conditions are not met within ``MOST_EXCHANGES``, though the kernel is finite.
    """
    size = kernel.detach().diagonal().mean()
    c = torch.as_tensor(cost, dtype=kernel.dtype, device=kernel.device)
    unit = torch.minimum(1 / size, c.detach())
    kernel, total = kernel / size, c / unit
    linear = total * labels @ kernel - labels / (unit * size)
    with torch.no_grad():
        free = interior_point(kernel, linear, total)
        for _ in range(MOST_EXCHANGES):
            beta, multipliers = given_zeros(kernel, linear, total, free)
            missed = torch.maximum(-beta.amin(), -multipliers.amin())
            if not missed > SOLVED:  # numbers that are not finite go through
                break
            free = beta > multipliers
        else:
            raise LearnerError(f"learner.prediction: the dual was not solved: a condition is missed by {missed:.1e}")
    beta, multipliers = given_zeros(kernel, linear, total, free)
    return Solved(unit * (total * labels - beta), free, multipliers * unit * size)


def given_zeros(kernel: Tensor, linear: Tensor, total: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """Return beta [classes, n], of which all but the free ones are 0, and its multipliers; differentiable.

    They minimize 1/2 sum_k beta_k^T K beta_k - <linear, beta> where each example's free beta sum to ``total``.
    """
    kept = free.to(kernel.dtype)
    both = kept.unsqueeze(-1) * kept.unsqueeze(-2)
    inverse = both * torch.linalg.inv_ex(both * kernel + torch.diag_embed(1 - kept))[0]  # [classes, n, n]
    unbalanced = total - times(inverse, linear).sum(0)  # [n]: what the sum of beta lacks without nu
    nu = torch.linalg.solve_ex(inverse.sum(0), unbalanced)[0]
    beta = times(inverse, linear + nu)
    return beta, (1 - kept) * (beta @ kernel - linear - nu)


def interior_point(kernel: Tensor, linear: Tensor, total: Tensor) -> Tensor:
    """Return where beta is not 0 at the solution: [classes, n], bool."""
    beta = (total / len(linear)).expand_as(linear)
    z, nu = torch.ones_like(linear), torch.zeros_like(linear[0])
    for _ in range(MOST_STEPS):
        gap = (beta * z).mean()
        if not gap > GAP:
            break
        inverse = torch.linalg.inv_ex(kernel + torch.diag_embed(z / beta))[0]
        right = linear - beta @ kernel + nu + CENTRING * gap / beta
        lacking = total - beta.sum(0) - times(inverse, right).sum(0)
        nu_step = torch.linalg.solve_ex(inverse.sum(0), lacking)[0]
        beta_step = times(inverse, right + nu_step)
        z_step = CENTRING * gap / beta - z - z / beta * beta_step
        # of a quadratic problem both take the same step, which keeps the dual conditions linear in it
        length = torch.minimum(to_border(beta, beta_step), to_border(z, z_step))
        beta, z, nu = beta + length * beta_step, z + length * z_step, nu + length * nu_step
    return beta > z


def to_border(point: Tensor, step: Tensor) -> Tensor:
    """Return the length of a step, at most 1, after which the point is still above 0: []."""
    ratio = torch.where(step < 0, -point / step, torch.inf)
    return (BACK * ratio.amin()).clamp_max(1.0)


def times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Multiply matrices [classes, n, n] by a vector each, [classes, n]."""
    return (matrices @ vectors.unsqueeze(-1)).squeeze(-1)
