"""By which routes each tensor of phi reaches the outer loss of a bilevel problem."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import Route
from metaloom.learners.tensors import Tensors, as_leaves

if TYPE_CHECKING:
    from metaloom.learners.solvers.bilevel import Bilevel

UPDATE = "update"


def scalar(loss: Tensor, which: str) -> Tensor:
    """Return a loss; raises LearnerError if it is not a tensor of no dimensions."""
    if not isinstance(loss, Tensor) or loss.dim() != 0:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise LearnerError(f"{which}: must return a tensor of no dimensions, got {got}")
    return loss


def routes_of(posed: "Bilevel", phi: Tensors, data: tuple[Any, ...]) -> Mapping[str, frozenset[Route]]:
    """Return for each tensor of phi by which routes it reaches the outer loss: each part is differentiated by phi.

    Raises:
        LearnerError: A tensor reaches nothing, the inner loss does not depend on theta, or a loss is not a number.
    """
    leaves, fixed = as_leaves(phi), {name: value.detach() for name, value in phi.items()}
    theta = {name: value.detach() for name, value in posed.theta(fixed).items()}
    if not theta:
        raise LearnerError("start: there is no tensor for the inner loop to move")
    moving = as_leaves(posed.rule.adapted(theta))
    if not moving:
        raise LearnerError(
            f"learner.update.adapt: it moves none of {', '.join(theta)}; a head's name begins with head."
        )
    begun = posed.theta(leaves)
    inner = scalar(posed.inner(leaves, theta | moving, *data), "inner")
    outer = scalar(posed.outer(leaves, theta | moving, *data), "outer")
    slopes = _slopes(inner, moving)
    found = {
        Route.START: _reached([value for name, value in begun.items() if name in moving], leaves),
        Route.STILL_START: _reached([value for name, value in begun.items() if name not in moving], leaves),
        Route.INNER: _reached(slopes, leaves),
        Route.UPDATE: {name for name in phi if name.startswith(f"{UPDATE}/")},
        Route.OUTER: _reached([outer], leaves),
    }
    routes = {name: frozenset(route for route, names in found.items() if name in names) for name in phi}
    for name, through in routes.items():
        if not through:
            raise LearnerError(f"phi: '{name}' takes no part in start, inner or outer; remove it")
    return routes


def _slopes(total: Tensor, leaves: Tensors) -> list[Tensor]:
    if not total.requires_grad:
        raise LearnerError("inner: it does not depend on theta")
    slopes = torch.autograd.grad(total, list(leaves.values()), create_graph=True, allow_unused=True)
    if all(slope is None for slope in slopes):
        raise LearnerError("inner: it does not depend on theta")
    return [slope for slope in slopes if slope is not None]


def _reached(outputs: list[Tensor], leaves: Tensors) -> set[str]:
    """Return the names of the leaves that any of the outputs is a function of."""
    totals = [output.sum() for output in outputs if output.requires_grad]
    if not totals:
        return set()
    found = torch.autograd.grad(torch.stack(totals).sum(), list(leaves.values()), allow_unused=True, retain_graph=True)
    return {name for name, slope in zip(leaves, found, strict=True) if slope is not None}
