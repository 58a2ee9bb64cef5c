r"""Points on products of spheres: their logarithms, and a descent that stays on the spheres.

    log_a(x) = theta / sin(theta) (x - cos(theta) a),  cos(theta) = <a, x>

Becigneul and Ganea, 2019, https://arxiv.org/abs/1810.00760: Adam on a Riemannian manifold takes the gradient in the
tangent space, moves there, and returns to the manifold; the momentum is carried to the next tangent space.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi

import torch
import torch.nn.functional as F
from torch import Tensor

KEPT, KEPT_SQUARES, SMALL = 0.9, 0.999, 1e-8  # Adam's own
FARTHEST = 1e-6  # below 1: the arc cosine has no slope at 1


def stretched(cosine: Tensor) -> Tensor:
    """Return theta / sin(theta), the factor of a logarithm, from the cosine of theta; of any shape."""
    angle = torch.acos(cosine.clamp(-1 + FARTHEST, 1 - FARTHEST))
    return angle / torch.sin(angle)


def tangent(points: Tensor, directions: Tensor) -> Tensor:
    """Return the part of directions that is tangent to the spheres, of the last dimension, at the points."""
    return directions - (points * directions).sum(-1, keepdim=True) * points


@dataclass(frozen=True)
class Descent:
    """Riemannian Adam on spheres, with its rate on a cosine to 0."""

    steps: int
    rate: float | Tensor

    def run(self, loss: Callable[[Tensor, Tensor], Tensor], start: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the two points after the descent of ``loss``; differentiable where gradients are taken outside."""
        outside = torch.is_grad_enabled()
        with torch.enable_grad():
            points = [one if outside and one.requires_grad else one.detach().requires_grad_() for one in start]
            means, squares = ([torch.zeros_like(one) for one in points] for _ in range(2))
            for step in range(1, self.steps + 1):
                slopes = torch.autograd.grad(loss(points[0], points[1]), points, create_graph=outside)
                rate = self.rate * (1 + cos(pi * (step - 1) / self.steps)) / 2
                for index, slope in enumerate(slopes):
                    at = points[index]
                    direction = tangent(at, slope)
                    means[index] = KEPT * means[index] + (1 - KEPT) * direction
                    length = direction.square().sum(-1, keepdim=True)  # one for a sphere: it has no axes of its own
                    squares[index] = KEPT_SQUARES * squares[index] + (1 - KEPT_SQUARES) * length
                    first = means[index] / (1 - KEPT**step)
                    second = squares[index] / (1 - KEPT_SQUARES**step)
                    moved = F.normalize(at - rate * first / (second + SMALL**2).sqrt().add(SMALL), dim=-1)
                    means[index] = tangent(moved, means[index])
                    points[index] = moved if outside else moved.detach().requires_grad_()
        return (points[0], points[1]) if outside else (points[0].detach(), points[1].detach())
