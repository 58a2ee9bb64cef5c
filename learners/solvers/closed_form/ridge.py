r"""Ridge regression as the head of a network: R2-D2.

Bertinetto, Henriques, Torr and Vedaldi, 2019, https://arxiv.org/abs/1805.08136, equations 4 to 6. X are the features of
the n support examples with a column of ones, Y their one-hot labels:

    W = argmin_W |X W - Y|^2 / n + lambda |W|^2
      = X^T (X X^T + n lambda I)^-1 Y        n <= d (Woodbury's identity)
      = (X^T X + n lambda I)^-1 X^T Y        n > d

    outputs(x) = alpha x W + beta

The gradient runs through the solve. lambda, alpha and beta may be learned. One beta for all classes has no effect on
their softmax, so it has a gradient in regression alone, where Y are the targets.

The mean over n is of the paper's code, not of its equation 4: one lambda then serves any number of shots.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from metaloom.learners.domains import Bounds, Learned, Real
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.closed_form.base import FittedHead, with_ones
from metaloom.learners.tensors import Tensors, one_hot


def ridge_weights(features: Tensor, targets: Tensor, penalty: float | Tensor) -> Tensor:
    """Return argmin |X W - Y|^2 + penalty |W|^2, by the smaller of its two systems.

    Args:
        features: X [n, d].
        targets: Y [n, outputs].
        penalty: Above 0; [] where it is learned.

    Returns:
        W [d, outputs]. A system that cannot be solved, of features that are not finite, gives numbers that are not.
    """
    examples, width = features.shape
    identity = torch.eye(min(examples, width), dtype=features.dtype, device=features.device)
    if examples <= width:
        dual: Tensor = torch.linalg.solve_ex(features @ features.T + penalty * identity, targets)[0]
        return features.T @ dual
    primal: Tensor = torch.linalg.solve_ex(features.T @ features + penalty * identity, features.T @ targets)[0]
    return primal


@dataclass(frozen=True)
class RidgeConfig:
    """How the head is fitted, and how its outputs are scaled.

    Attributes:
        penalty: lambda, of the mean squared error.
        scale: alpha, by which the outputs are multiplied.
        bias: beta, which is added to all outputs alike; without effect on classes.
        intercept: Whether the head has an intercept for each output, under the same penalty.
    """

    penalty: Annotated[float | Learned, Real(1e-3, 1e3, log=True, positive=True), Bounds(above=0)] = 1.0
    scale: Annotated[float | Learned, Real(0.1, 100.0, log=True, positive=True), Bounds(above=0)] = 1.0
    bias: Annotated[float | Learned, Real(-10.0, 10.0)] = 0.0
    intercept: bool = True


@SOLVERS.register("ridge")
class Ridge(FittedHead):
    """Ridge regression on the support set's features, of one-hot labels or of the targets."""

    Config = RidgeConfig
    config: RidgeConfig

    def extended(self, features: Tensor) -> Tensor:
        return with_ones(features) if self.config.intercept else features

    def weights(self, phi: Tensors, features: Tensor, targets: Tensor) -> Tensor:
        if self.task.task_kind.has_classes:
            targets = one_hot(targets, self.task.outputs, features)
        return ridge_weights(features, targets, len(features) * self.knob(phi, "penalty"))

    def read(self, phi: Tensors, scores: Tensor) -> Tensor:
        return self.knob(phi, "scale") * scores + self.knob(phi, "bias")
