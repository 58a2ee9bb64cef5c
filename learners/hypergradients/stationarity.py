"""When an inner solution is a root of the inner gradient, and how far from it an inner loop has ended."""

from collections.abc import Callable

import torch
from torch import Tensor

from metaloom.learners.tensors import InnerState, Tensors

UNSOLVED = "unsolved"  # the diagnostic of every estimator at the inner solution; see ``unsolved``


def drifts(update: Callable[[InnerState, Tensors], InnerState], state: InnerState, penalty: Tensors) -> bool:
    """Whether an update moves theta where the inner gradient and the update's own penalty cancel.

    Its fixed point is then no root of the inner gradient: with decoupled weight decay, for one.

    Args:
        update: The state and the inner gradient to the next state.
        state: theta, and buffers at rest.
        penalty: The gradient of the update's own penalty at theta, one tensor per parameter that it moves.
    """
    with torch.no_grad():
        after = update(state, {name: -value for name, value in penalty.items()}).theta
    return any(
        bool(((after[name] - value).abs() > 4 * torch.finfo(value.dtype).eps * value.abs()).any())
        for name, value in state.theta.items()
    )


def needs_stationary(estimator: str, cause: str) -> str:
    """Return the message that refuses an update which drifts."""
    return (
        f"outer.hypergradient: {estimator} differentiates a root of the inner gradient, but {cause} moves the "
        "parameters where it is zero (decoupled weight decay does); set learner.update.weight_decay to 0, use sgd, "
        "whose decay is part of the inner gradient, or use fixed_point or unroll"
    )


def unsolved(outer_loss: Tensor, change: Tensor) -> float:
    """Return by which share the outer loss would change if the inner problem were solved to its end, to first order.

    With the adjoint solution q (H^T q = dL/dtheta) the change is -<q, inner gradient>. The number has no unit: it does
    not depend on the scale of either loss.
    """
    tiny = torch.finfo(outer_loss.dtype).tiny
    return float(change.detach().abs() / outer_loss.detach().abs().clamp_min(tiny))
