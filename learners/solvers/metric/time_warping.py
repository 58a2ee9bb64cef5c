r"""The nearest neighbour of a series by dynamic time warping, which learns nothing.

Sakoe and Chiba, 1978, https://doi.org/10.1109/TASSP.1978.1163055:

    D(i, j) = |a_i - b_j|^2 + min(D(i-1, j), D(i, j-1), D(i-1, j-1)),   D(1, 1) = |a_1 - b_1|^2
    squared: d(a, b) = D(T_a, T_b),     root: d(a, b) = sqrt(D(T_a, T_b))

|.|^2 is the sum over the channels. ``squared`` is what aeon returns, ``root`` what tslearn and pyts return: both have
the same nearest neighbour, but a temperature of one means nothing to the other. ``window`` bounds |i - j| by a fraction
of the longer series, and by the difference of the lengths at least. Steps that were not observed are left out, so that
series of unequal length are compared as they are. Cost: the product of both lengths for each pair of series.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.domains import Bounds, Learned, Real
from metaloom.learners.episode import Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.series.observed import split_observed
from metaloom.learners.solvers.amortized import AmortizedSolver, Embedding, Outputs
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.tensors import Tensors

CELLS = 2**23  # of the cost matrices of the pairs that are warped at once


@dataclass(frozen=True)
class TimeWarpingConfig:
    """How series are compared.

    Attributes:
        distance: The sum of squares along the path, or its root.
        window: How far apart two steps that are matched may be, as a fraction of the longer series; 1 does not bound.
        temperature: What the distances are divided by before the softmax.
    """

    distance: Literal["squared", "root"] = "squared"
    window: Annotated[float, Real(0.0, 1.0, per=()), Bounds(at_least=0, at_most=1)] = 1.0
    temperature: Annotated[float | Learned, Real(0.01, 100.0, log=True, positive=True)] = 1.0


@SOLVERS.register("time_warping")
class TimeWarping(AmortizedSolver):
    """The class of the support series at the smallest distance; its scores are minus the distance to each class."""

    Config = TimeWarpingConfig
    config: TimeWarpingConfig
    reads = frozenset()
    needs_classes = True

    def __init__(self, config: TimeWarpingConfig, task: TaskShape) -> None:
        super().__init__(config, task)
        if len(task.inputs) != 2:
            raise LearnerError(
                "learner.prediction: time_warping compares series [channels, length], but this task's examples have "
                f"shape {task.inputs}; use nearest_neighbour"
            )

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        def outputs(query_x: Tensor) -> Tensor:
            distances = warped(query_x, support.x, self.task, self.config.window)  # [queries, n]
            distances = distances.sqrt() if self.config.distance == "root" else distances
            # a class without an example, of a single task's batch, is farther away than all
            farther = -2 * distances.amax(1, keepdim=True) - 1
            scores = farther.expand(-1, self.task.outputs)
            nearest = scores.scatter_reduce(1, support.y.expand_as(distances), -distances, "amax")
            return nearest / self.knob(phi, "temperature")

        return outputs


@torch.no_grad()
def warped(left: Tensor, right: Tensor, task: TaskShape, window: float = 1.0) -> Tensor:
    """Return the squared distances [n, m] of series [n, channels, length] and [m, channels, length] of a task."""
    (a, steps_a), (b, steps_b) = (observed_first(x, task) for x in (left, right))
    at_once = max(CELLS // (len(b) * a.shape[-1] * b.shape[-1]), 1)
    starts = range(0, len(a), at_once)
    parts = [(a[first : first + at_once], steps_a[first : first + at_once]) for first in starts]
    return torch.cat([_warp(one, b, steps, steps_b, window) for one, steps in parts])


def observed_first(x: Tensor, task: TaskShape) -> tuple[Tensor, Tensor]:
    """Return the values [n, channels, length], observed steps first in their order, and how many each has [n]."""
    values, observed = split_observed(x, task)
    if observed is None:
        return values, torch.full((len(x),), x.shape[-1], device=x.device)
    order = (~observed).to(torch.uint8).argsort(dim=1, stable=True)
    return values.gather(2, order[:, None].expand_as(values)), observed.sum(1).clamp_min(1)


def _warp(a: Tensor, b: Tensor, steps_a: Tensor, steps_b: Tensor, window: float) -> Tensor:
    """Go through the matrix of each pair by its diagonals i + j = k, all of whose cells are independent: [n, m]."""
    rows, columns = a.shape[-1], b.shape[-1]
    cost = (a[:, None, :, :, None] - b[None, :, :, None, :]).square().sum(2)  # [n, m, rows, columns]
    away = (torch.arange(rows)[:, None] - torch.arange(columns)).abs().to(a.device)
    longest = torch.maximum(steps_a[:, None], steps_b)
    band = torch.maximum((window * longest).ceil(), (steps_a[:, None] - steps_b).abs())
    cost = cost.masked_fill(away > band[..., None, None], torch.inf)
    # row i is moved i places to the right, so that a diagonal is a column
    wide = F.pad(cost, (0, rows), value=torch.inf).flatten(2)[..., : rows * (rows + columns - 1)]
    diagonals = wide.reshape(*cost.shape[:2], rows, rows + columns - 1).unbind(-1)
    last = cost.new_full((*cost.shape[:2], rows + 1), torch.inf)  # D of the diagonal before; place 0 is row -1
    before, found = last.clone(), cost.new_zeros(cost.shape[:2])
    before[..., 0] = 0.0
    ends = steps_a[:, None] + steps_b - 2
    place = steps_a[:, None, None].expand(*cost.shape[:2], 1)
    for number, diagonal in enumerate(diagonals):
        best = torch.minimum(torch.minimum(last[..., 1:], last[..., :-1]), before[..., :-1])
        now = F.pad(diagonal + best, (1, 0), value=torch.inf)
        found = torch.where(ends == number, now.gather(-1, place)[..., 0], found)
        before, last = last, now
    return found
