r"""A multi-class support vector machine, or ridge regression, as the head of a network: MetaOptNet.

Lee, Maji, Ravichandran and Soatto, 2019, https://arxiv.org/abs/1904.03758, equations 6 to 12. From the features f of
the support set, with the dual solution alpha:

    outputs(x)_k = gamma <f(x), w_k>,    w_k = sum_n alpha_{n, k} f(x_n)

``hinge`` solves the dual of Crammer and Singer (``crammer_singer.py``), ``squared`` alpha = (K + lambda I)^-1 Y. The
gradient is the implicit one of the dual's conditions at its solution. Neither head has an intercept.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from metaloom.learners.domains import Bounds, Learned, Real
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.closed_form.base import FittedHead
from metaloom.learners.solvers.closed_form.crammer_singer import solve_dual
from metaloom.learners.solvers.closed_form.ridge import ridge_weights
from metaloom.learners.tensors import Tensors, one_hot

FLAT = 1e-9  # the least mean of a kernel's diagonal: features that are all zero have a solution too


@dataclass(frozen=True)
class SupportVectorMachineConfig:
    """How the head is fitted, and how its outputs are scaled.

    Attributes:
        loss: Of the support set: ``hinge``, the support vector machine, or ``squared``, ridge regression.
        cost: C, of ``hinge``: what a violated margin costs.
        dual_ridge: delta, of ``hinge``, in means of the kernel's diagonal: what makes its dual strictly convex. A
            larger one smooths the hinge.
        penalty: lambda, of ``squared``.
        scale: gamma, by which the outputs are multiplied.
    """

    loss: Literal["hinge", "squared"] = "hinge"
    cost: Annotated[float | Learned, Real(1e-3, 10.0, log=True, positive=True), Bounds(above=0)] = 0.1
    dual_ridge: Annotated[float | Learned, Real(1e-4, 10.0, log=True, positive=True), Bounds(at_least=1e-4)] = 1e-3
    penalty: Annotated[float | Learned, Real(1e-2, 1e3, log=True, positive=True), Bounds(above=0)] = 50.0
    scale: Annotated[float | Learned, Real(0.1, 100.0, log=True, positive=True), Bounds(above=0)] = 1.0


@SOLVERS.register("svm")
class SupportVectorMachine(FittedHead):
    """A linear multi-class support vector machine on the support set's features; solved in float64."""

    Config = SupportVectorMachineConfig
    config: SupportVectorMachineConfig
    needs_classes = True

    def weights(self, phi: Tensors, features: Tensor, targets: Tensor) -> Tensor:
        labels = one_hot(targets, self.task.outputs, features)
        if self.config.loss == "squared":
            return ridge_weights(features, labels, self.knob(phi, "penalty"))
        exact = features.double()
        kernel = exact @ exact.T
        ridge = self.knob(phi, "dual_ridge") * kernel.diagonal().mean().clamp_min(FLAT)
        regular = kernel + ridge * torch.eye(len(exact), dtype=exact.dtype, device=exact.device)
        alpha = solve_dual(regular, labels.T.double(), self.knob(phi, "cost")).alpha
        return (alpha @ exact).T.to(features.dtype)

    def read(self, phi: Tensors, scores: Tensor) -> Tensor:
        return self.knob(phi, "scale") * scores
