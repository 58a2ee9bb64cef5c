"""The outer loop's optimizers and rate schedules, as pure functions.

The state that ``torch.optim`` keeps in objects is a dictionary ``name -> tensor`` here, so that a checkpoint stores it
without pickling, and a resumed trial goes on bit for bit.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from metaloom.learners.errors import BadInput
from metaloom.learners.tensors import Tensors

ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8  # rmsprop's too
RMSPROP_SMOOTHING = 0.99


def start_sgd(phi: Tensors) -> Tensors:
    """Gradient descent has no state."""
    return {}


def sgd(phi: Tensors, gradient: Tensors, state: Tensors, rate: float) -> tuple[Tensors, Tensors]:
    """Return phi - rate * gradient, and the empty state."""
    if not phi:
        return {}, state
    moved = torch._foreach_add(list(phi.values()), _along(phi, gradient), alpha=-rate)
    return dict(zip(phi, moved, strict=True)), state


def start_adam(phi: Tensors) -> Tensors:
    """Return both moments at zero, and the count of steps."""
    first = {f"first/{name}": torch.zeros_like(leaf) for name, leaf in phi.items()}
    second = {f"second/{name}": torch.zeros_like(leaf) for name, leaf in phi.items()}
    return {"count": torch.zeros((), dtype=torch.int64), **first, **second}


def adam(phi: Tensors, gradient: Tensors, state: Tensors, rate: float) -> tuple[Tensors, Tensors]:
    """Take one step of Adam (Kingma and Ba, 2014, https://arxiv.org/abs/1412.6980, algorithm 1).

    The order of operations is that of ``torch.optim.Adam``; nothing is changed in place.
    """
    if not phi:
        return {}, state
    beta1, beta2 = ADAM_BETAS
    count = state["count"] + 1
    leaves, gradients = list(phi.values()), _along(phi, gradient)
    first = torch._foreach_lerp([state[f"first/{name}"] for name in phi], gradients, 1 - beta1)
    second = torch._foreach_mul([state[f"second/{name}"] for name in phi], beta2)
    second = torch._foreach_addcmul(second, gradients, gradients, 1 - beta2)
    steps = int(count)
    scale = torch._foreach_div(torch._foreach_sqrt(second), (1 - beta2**steps) ** 0.5)
    scale = torch._foreach_add(scale, ADAM_EPSILON)
    moved = torch._foreach_addcdiv(leaves, first, scale, -rate / (1 - beta1**steps))
    after = {f"first/{name}": one for name, one in zip(phi, first, strict=True)}
    after |= {f"second/{name}": one for name, one in zip(phi, second, strict=True)}
    return dict(zip(phi, moved, strict=True)), {"count": count, **after}


def start_rmsprop(phi: Tensors) -> Tensors:
    """Return the mean square at zero."""
    return {f"square/{name}": torch.zeros_like(leaf) for name, leaf in phi.items()}


def rmsprop(phi: Tensors, gradient: Tensors, state: Tensors, rate: float) -> tuple[Tensors, Tensors]:
    """Return phi - rate * gradient / root of the mean square gradient (Tieleman and Hinton, 2012, lecture 6.5).

    The order of operations, the smoothing and epsilon are those of ``torch.optim.RMSprop``.
    """
    if not phi:
        return {}, state
    gradients = _along(phi, gradient)
    square = torch._foreach_mul([state[f"square/{name}"] for name in phi], RMSPROP_SMOOTHING)
    square = torch._foreach_addcmul(square, gradients, gradients, 1 - RMSPROP_SMOOTHING)
    scale = torch._foreach_add(torch._foreach_sqrt(square), ADAM_EPSILON)
    moved = torch._foreach_addcdiv(list(phi.values()), gradients, scale, -rate)
    return dict(zip(phi, moved, strict=True)), {f"square/{name}": one for name, one in zip(phi, square, strict=True)}


Start = Callable[[Tensors], Tensors]
Update = Callable[[Tensors, Tensors, Tensors, float], tuple[Tensors, Tensors]]
OPTIMIZERS: dict[str, tuple[Start, Update]] = {
    "adam": (start_adam, adam),
    "sgd": (start_sgd, sgd),
    "rmsprop": (start_rmsprop, rmsprop),
}


def constant(step: int, steps: int) -> float:
    """Return 1 at every step."""
    return 1.0


def cosine(step: int, steps: int) -> float:
    """Return half a cosine from 1 at step 0 to 0 at ``steps`` (https://arxiv.org/abs/1608.03983, eq. 5)."""
    return 0.5 * (1.0 + math.cos(math.pi * min(step / steps, 1.0)))


def linear(step: int, steps: int) -> float:
    """Return a straight line from 1 at step 0 to 0 at ``steps``, as Reptile anneals its outer rate."""
    return max(0.0, 1.0 - step / steps)


# (step, steps) to the fraction of the outer rate at that step
SCHEDULES: dict[str, Callable[[int, int], float]] = {"constant": constant, "cosine": cosine, "linear": linear}


def global_norm(gradient: Tensors) -> float:
    """Return the Euclidean norm over all leaves together; 0 if there are none."""
    if not gradient:
        return 0.0
    norms = torch._foreach_norm(list(gradient.values()), 2, dtype=torch.float64)
    return float(torch.linalg.vector_norm(torch.stack(list(norms))))


def clipped(gradient: Tensors, norm: float, limit: float | None) -> Tensors:
    """Scale the gradient down to the global norm ``limit``, if it is longer than that."""
    if limit is None or norm <= limit:
        return gradient
    scaled = torch._foreach_mul(list(gradient.values()), limit / norm)
    return dict(zip(gradient, scaled, strict=True))


def decayed(gradient: Tensors, phi: Tensors, weight_decay: float) -> Tensors:
    """Add the gradient of ``weight_decay`` / 2 |phi|^2."""
    if weight_decay == 0:
        return gradient
    return {name: value + weight_decay * phi[name] for name, value in gradient.items()}


def first_non_finite(tensors: Tensors) -> str | None:
    """Return the name of the first leaf that holds a NaN or an infinity."""
    return next((name for name, leaf in tensors.items() if not bool(torch.isfinite(leaf).all())), None)


def _along(phi: Tensors, gradient: Tensors) -> list[Tensor]:
    if phi.keys() != gradient.keys():
        odd = sorted(phi.keys() ^ gradient.keys())
        raise BadInput(f"the hypergradient does not have the leaves of phi: {', '.join(odd)}")
    return [gradient[name] for name in phi]
