"""The examples' losses at one theta, and products with their gradients, none of which is computed by itself.

With J the Jacobian of the losses [n] by the parameters, ``pull`` returns J^T w, the gradient of the weighted sum, and
``push`` returns J v, the inner product of every example's gradient with a direction. J v is got as the derivative of
J^T w by w along v, so that it needs no forward-mode rule of any operation, and is itself differentiable.

Where the losses are constants and only the weights are learned (Meta-Weight-Net's one step), J is one too, and the
derivative of J^T w by w along v is J v itself: one forward-mode pass, and no graph of the gradient
(``Pull``).
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from metaloom.learners.errors import LearnerError
from metaloom.learners.tensors import Tensors, pullback

with forward_ad.dual_level(), warnings.catch_warnings():
    # The first dual number of a process makes torch compile scripts. On Python 3.11 that fails if another
    # thread parses Python meanwhile ("AST constructor recursion depth mismatch"), as a search's own threads may.
    # An import happens before they run. From torch 2.14 on torch deprecates what it does here itself.
    warnings.simplefilter("ignore", FutureWarning)
    forward_ad.make_dual(torch.zeros(1), torch.zeros(1))  # type: ignore[no-untyped-call]


class ExampleGradients(NamedTuple):
    """One linearization of the inner loss.

    Attributes:
        losses: [n].
        pull: Weights [n] to the gradient of the weighted sum.
        measure: The same for weights that count as constants; not to be differentiated again.
        push: A direction to <grad l_i, direction>, [n].
        gradient_of: A scalar function of the parameters to its gradient at the same point.
    """

    losses: Tensor
    pull: Callable[[Tensor], Tensors]
    measure: Callable[[Tensor], Tensors]
    push: Callable[[Tensors], Tensor]
    gradient_of: Callable[[Callable[[Tensors], Tensor]], Tensors]


def gradient_of(scalar: Callable[[Tensors], Tensor], at: Tensors, *, functional: bool, differentiable: bool) -> Tensors:
    """Return the gradient of a scalar function at a point, by ``torch.func`` or by autograd's own graph.

    Args:
        scalar: The parameters to a tensor of no dimensions.
        at: Where; leaves are made of those that no graph leads to.
        functional: Inside vmap, or a trace.
        differentiable: Whether the result is to be differentiated again; ``torch.func``'s always is.
    """
    if functional:
        gradient: Tensors = torch.func.grad(scalar)(at)
        return gradient
    with torch.enable_grad():
        leaves = {name: one if one.requires_grad else one.detach().requires_grad_() for name, one in at.items()}
        total = scalar(leaves)
        return pullback({"": total}, {"": torch.ones_like(total)}, leaves, differentiable=differentiable)


def functional_gradients(losses_at: Callable[[Tensors], Tensor], fast: Tensors) -> ExampleGradients:
    """Linearize by ``torch.func``: inside vmap, or a trace."""
    losses, backward = torch.func.vjp(losses_at, fast)[:2]

    def pull(weights: Tensor) -> Tensors:
        gradient: Tensors = backward(weights)[0]
        return gradient

    def push(direction: Tensors) -> Tensor:
        product: Tensor = torch.func.vjp(pull, torch.zeros_like(losses))[1](direction)[0]
        return product

    return ExampleGradients(losses, pull, pull, push, lambda scalar: torch.func.grad(scalar)(fast))


def autograd_gradients(
    losses_at: Callable[[Tensors], Tensor], fast: Tensors, *, differentiable: bool, constant: bool = False
) -> ExampleGradients:
    """Linearize by autograd's own graph.

    Args:
        losses_at: The parameters to the losses.
        fast: Where; leaves are made of those that no graph leads to.
        differentiable: Whether the results are to be differentiated again, in phi or theta.
        constant: Whether nothing of that reaches the losses, but only the weights that ``pull`` is given.
    """
    differentiable = differentiable and not constant
    with torch.enable_grad():
        leaves = {n: v if v.requires_grad else v.detach().requires_grad_() for n, v in fast.items()}
        losses = losses_at(leaves)

    def gradient(total: Tensor, weights: Tensor, *, again: bool) -> Tensors:
        with torch.enable_grad():
            return pullback({"": total}, {"": weights}, leaves, keep=True, differentiable=again)

    def measure(weights: Tensor) -> Tensors:
        return gradient(losses, weights.detach(), again=False)

    def pull(weights: Tensor) -> Tensors:
        if constant and weights.requires_grad:
            jacobian = Jacobian(measure, losses_at, fast)
            return dict(zip(fast, Pull.apply(jacobian, weights), strict=True))  # type: ignore[no-untyped-call]
        return gradient(losses, weights, again=True) if differentiable else measure(weights)

    def push(direction: Tensors) -> Tensor:
        with torch.enable_grad():
            weights = torch.zeros_like(losses, requires_grad=True)
            moved = {n: one for n, one in gradient(losses, weights, again=True).items() if one.requires_grad}
            (product,) = torch.autograd.grad(
                list(moved.values()), [weights], [direction[name] for name in moved], create_graph=differentiable
            )
        return product

    def gradient_of(scalar: Callable[[Tensors], Tensor]) -> Tensors:
        with torch.enable_grad():
            total = scalar(leaves)
        return gradient(total, torch.ones_like(total), again=differentiable)

    return ExampleGradients(losses.detach() if constant else losses, pull, measure, push, gradient_of)


class Jacobian(NamedTuple):
    """J of ``losses_at`` at a point that is a constant: ``pull`` is J^T w, without a graph."""

    pull: Callable[[Tensor], Tensors]
    losses_at: Callable[[Tensors], Tensor]
    at: Tensors

    @torch.no_grad()
    def push(self, direction: Tensors) -> Tensor:
        """Return J v, by one pass of dual numbers."""
        with forward_ad.dual_level(), warnings.catch_warnings():
            dual = {name: forward_ad.make_dual(value.detach(), direction[name]) for name, value in self.at.items()}  # type: ignore[no-untyped-call]
            tangent: Tensor | None = forward_ad.unpack_dual(self.losses_at(dual)).tangent  # type: ignore[no-untyped-call]
        if tangent is None:
            raise LearnerError("learner.architecture: no parameter that the inner loop moves reaches the losses")
        return tangent


class Pull(torch.autograd.Function):
    """w to J^T w; its derivative by w along v is J v, whose derivative by v is J^T again: exact to any order."""

    @staticmethod
    def forward(ctx: Any, jacobian: Jacobian, weights: Tensor) -> tuple[Tensor, ...]:
        """Return the weighted gradient, one tensor a parameter."""
        ctx.jacobian = jacobian
        return tuple(jacobian.pull(weights).values())

    @staticmethod
    def backward(ctx: Any, *direction: Tensor) -> tuple[None, Tensor]:
        """Return <grad l_i, direction> of every example."""
        # not in ``Push.forward``, where torch turns dual numbers off
        product = ctx.jacobian.push(dict(zip(ctx.jacobian.at, direction, strict=True)))
        return None, Push.apply(ctx.jacobian, product, *direction)  # type: ignore[no-untyped-call]


class Push(torch.autograd.Function):
    """v to J v, which is given with it."""

    @staticmethod
    def forward(ctx: Any, jacobian: Jacobian, product: Tensor, *direction: Tensor) -> Tensor:
        """Return <grad l_i, direction> of every example."""
        ctx.jacobian = jacobian
        return product.view_as(product)

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor | None, ...]:
        """Return the weighted gradient, one tensor a parameter."""
        return None, None, *Pull.apply(ctx.jacobian, weights)  # type: ignore[no-untyped-call]
