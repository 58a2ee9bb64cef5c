"""Dictionaries of tensors: what phi, theta and their gradients are, and what is computed with them.

A dictionary maps a name to a tensor; a slash in a name separates whose it is from what it is:
``update/rate/conv0.weight``. This file is the ground floor: it imports torch alone.
"""

from typing import NamedTuple

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


class InnerState(NamedTuple):
    """theta and the inner optimizer's buffers."""

    theta: Tensors
    buffers: Tensors


def flat_state(state: InnerState) -> Tensors:
    """Put theta and the buffers into one dictionary, under ``theta/`` and ``buffers/``."""
    return under("theta", state.theta) | under("buffers", state.buffers)


def state_of(flat: Tensors) -> InnerState:
    """Undo ``flat_state``."""
    return InnerState(part(flat, "theta"), part(flat, "buffers", optional=True))


def part(tensors: Tensors, prefix: str, *, optional: bool = False) -> Tensors:
    """Return the entries under ``prefix/``, without the prefix.

    Raises:
        KeyError: There are none, and the part is not ``optional``.
    """
    head = prefix + "/"
    found = {name[len(head) :]: tensor for name, tensor in tensors.items() if name.startswith(head)}
    if not found and not optional:
        places = sorted({name.partition("/")[0] for name in tensors})
        raise KeyError(f"nothing is under '{prefix}/'; there are: {', '.join(places) or 'no tensors'}")
    return found


def under(prefix: str, tensors: Tensors) -> Tensors:
    """Return the entries with ``prefix/`` in front."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def as_leaves(tensors: Tensors) -> Tensors:
    """Return the same values as graph leaves that require a gradient."""
    return {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}


def derivative(total: Tensor, leaves: Tensors) -> Tensors:
    """Return d total / d leaves; zero where a leaf plays no part."""
    if not leaves or not total.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, grads, strict=True))


def pullback(outputs: Tensors, cotangents: Tensors, inputs: Tensors, *, keep: bool = False) -> Tensors:
    """Return the vector-Jacobian product of ``outputs`` by ``inputs``; zero where they do not meet.

    Args:
        outputs: Tensors with a graph.
        cotangents: One tensor per output, of its shape.
        inputs: The leaves.
        keep: Keep the graph for another product.
    """
    names = [name for name, tensor in outputs.items() if tensor.requires_grad]
    if not names or not inputs:
        return {name: torch.zeros_like(tensor) for name, tensor in inputs.items()}
    grads = torch.autograd.grad(
        [outputs[name] for name in names],
        list(inputs.values()),
        grad_outputs=[cotangents[name] for name in names],
        retain_graph=keep,
        allow_unused=True,
        materialize_grads=True,
    )
    return dict(zip(inputs, grads, strict=True))


def add(left: Tensors, right: Tensors) -> Tensors:
    """Return left + right, entry by entry; an entry that ``right`` lacks stays."""
    return {name: tensor + right[name] if name in right else tensor for name, tensor in left.items()}


def dot(left: Tensors, right: Tensors) -> Tensor:
    """Return the inner product over all entries of ``left``: a tensor of no dimensions."""
    return torch.stack([(tensor * right[name]).sum() for name, tensor in left.items()]).sum()


def norm(tensors: Tensors) -> Tensor:
    """Return the Euclidean norm over all entries."""
    return dot(tensors, tensors).sqrt()


def flatten(tensors: Tensors) -> Tensor:
    """Put all entries, in their order, into one vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors.values()])


def unflatten(vector: Tensor, like: Tensors) -> Tensors:
    """Undo ``flatten``."""
    pieces = vector.split_with_sizes([tensor.numel() for tensor in like.values()])
    return {name: piece.view_as(like[name]) for name, piece in zip(like, pieces, strict=True)}
