"""The examples' losses at one theta, and what is asked of their gradients without making each of them.

With J the Jacobian of the losses [n] by the parameters, ``pull`` returns J^T w, the gradient of the weighted sum, and
``push`` returns J v, the inner product of every example's gradient with a direction. J v is got as the derivative of
J^T w by w along v, so that it needs no forward-mode rule of any operation, and is itself differentiable.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metaloom.learners.base import Tensors


class ExampleGradients(NamedTuple):
    """One linearization of the inner loss.

    Attributes:
        losses: [n].
        pull: Weights [n] to the gradient of the weighted sum.
        push: A direction to <grad l_i, direction>, [n].
        slope: A scalar function of the parameters to its gradient at the same point.
    """

    losses: Tensor
    pull: Callable[[Tensor], Tensors]
    push: Callable[[Tensors], Tensor]
    slope: Callable[[Callable[[Tensors], Tensor]], Tensors]


def functional_gradients(losses_at: Callable[[Tensors], Tensor], fast: Tensors) -> ExampleGradients:
    """Linearize by ``torch.func``: inside vmap, or a trace."""
    losses, backward = torch.func.vjp(losses_at, fast)[:2]

    def pull(weights: Tensor) -> Tensors:
        gradient: Tensors = backward(weights)[0]
        return gradient

    def push(direction: Tensors) -> Tensor:
        product: Tensor = torch.func.vjp(pull, torch.zeros_like(losses))[1](direction)[0]
        return product

    return ExampleGradients(losses, pull, push, lambda judge: torch.func.grad(judge)(fast))


def autograd_gradients(
    losses_at: Callable[[Tensors], Tensor], fast: Tensors, *, differentiable: bool
) -> ExampleGradients:
    """Linearize by autograd's own graph.

    Args:
        losses_at: The parameters to the losses.
        fast: Where; leaves are made of those that no graph leads to.
        differentiable: Whether the results are to be differentiated again, in phi or theta.
    """
    with torch.enable_grad():
        leaves = {n: v if v.requires_grad else v.detach().requires_grad_() for n, v in fast.items()}
        losses = losses_at(leaves)

    def gradient(total: Tensor, weights: Tensor | None, *, again: bool) -> Tensors:
        with torch.enable_grad():
            grads = torch.autograd.grad(
                total,
                list(leaves.values()),
                grad_outputs=weights,
                create_graph=again,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
        return dict(zip(leaves, grads, strict=True))

    def pull(weights: Tensor) -> Tensors:
        return gradient(losses, weights if differentiable else weights.detach(), again=differentiable)

    def push(direction: Tensors) -> Tensor:
        with torch.enable_grad():
            weights = torch.zeros_like(losses, requires_grad=True)
            slopes = {n: one for n, one in gradient(losses, weights, again=True).items() if one.requires_grad}
            (product,) = torch.autograd.grad(
                list(slopes.values()),
                [weights],
                grad_outputs=[direction[name] for name in slopes],
                create_graph=differentiable,
            )
        return product

    def slope(judge: Callable[[Tensors], Tensor]) -> Tensors:
        with torch.enable_grad():
            return gradient(judge(leaves), None, again=differentiable)

    return ExampleGradients(losses, pull, push, slope)
