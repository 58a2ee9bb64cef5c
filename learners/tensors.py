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

    def detached(self) -> "InnerState":
        """Return the state without the graph that made it."""
        return InnerState(detach(self.theta), detach(self.buffers))

    def flat(self) -> Tensors:
        """Put theta and the buffers into one dictionary, under ``theta/`` and ``buffers/``."""
        return under("theta", self.theta) | under("buffers", self.buffers)

    @classmethod
    def of(cls, flat: Tensors) -> "InnerState":
        """Undo ``flat``."""
        return cls(part(flat, "theta"), part(flat, "buffers", optional=True))


def part(tensors: Tensors, prefix: str, *, optional: bool = False) -> Tensors:
    """Return the entries under ``prefix/``, without it; raises KeyError if there are none, unless ``optional``."""
    head = prefix + "/"
    found = {name[len(head) :]: tensor for name, tensor in tensors.items() if name.startswith(head)}
    if not found and not optional:
        places = sorted({name.partition("/")[0] for name in tensors})
        raise KeyError(f"nothing is under '{prefix}/'; there are: {', '.join(places) or 'no tensors'}")
    return found


def under(prefix: str, tensors: Tensors) -> Tensors:
    """Return the entries with ``prefix/`` in front."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def detach(tensors: Tensors) -> Tensors:
    """Return the same values without their graph."""
    return {name: tensor.detach() for name, tensor in tensors.items()}


def as_leaves(tensors: Tensors) -> Tensors:
    """Return the same values as graph leaves that require a gradient."""
    return {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}


def derivative(total: Tensor, leaves: Tensors) -> Tensors:
    """Return d total / d leaves; zero where a leaf plays no part."""
    return pullbacks({"": total}, {"": torch.ones_like(total)}, leaves)[0]


def pullback(
    outputs: Tensors, cotangents: Tensors, inputs: Tensors, *, keep: bool = False, differentiable: bool = False
) -> Tensors:
    """Return the vector-Jacobian product of ``outputs`` by one group of inputs; see ``pullbacks``."""
    return pullbacks(outputs, cotangents, inputs, keep=keep, differentiable=differentiable)[0]


def pullbacks(
    outputs: Tensors, cotangents: Tensors, *inputs: Tensors, keep: bool = False, differentiable: bool = False
) -> list[Tensors]:
    """Return the vector-Jacobian product of ``outputs`` by each of several groups of inputs, in one pass.

    Args:
        outputs: Tensors with a graph.
        cotangents: One tensor per output, of its shape.
        inputs: Groups of leaves; an input that no output depends on gets zeros.
        keep: Keep the graph for another product.
        differentiable: Give the products a graph of their own.
    """
    names = [name for name, tensor in outputs.items() if tensor.requires_grad]
    leaves = [leaf for group in inputs for leaf in group.values()]
    if not names or not leaves:
        return [{name: torch.zeros_like(leaf) for name, leaf in group.items()} for group in inputs]
    whole = [outputs[name] for name in names]
    weights = [cotangents[name] for name in names]
    if all(one.ndim <= 1 for one in whole) and not any(one.requires_grad for one in weights):
        # torch checks the shapes of weights with SymPy, whose import takes a second; a sum of products needs none
        whole, weights = [(one * weight).sum() for one, weight in zip(whole, weights, strict=True)], []
    grads = torch.autograd.grad(
        whole,
        leaves,
        grad_outputs=weights or None,
        retain_graph=keep or differentiable,
        create_graph=differentiable,
        allow_unused=True,
        materialize_grads=True,
    )
    rest = iter(grads)  # each group takes its share of them
    return [dict(zip(group, rest, strict=False)) for group in inputs]


def add(left: Tensors, right: Tensors) -> Tensors:
    """Return left + right, entry by entry; an entry that ``right`` lacks stays."""
    return {name: tensor + right[name] if name in right else tensor for name, tensor in left.items()}


def dot(left: Tensors, right: Tensors) -> Tensor:
    """Return the inner product over all entries of ``left``: a tensor of no dimensions."""
    return torch.stack([(tensor * right[name]).sum() for name, tensor in left.items()]).sum()


def norm(tensors: Tensors) -> Tensor:
    """Return the Euclidean norm over all entries."""
    return dot(tensors, tensors).sqrt()


def one_hot(index: Tensor, size: int, like: Tensor) -> Tensor:
    """Return [..., size] of the precision of ``like``; torch's own reads the values, which vmap does not allow."""
    return (index.unsqueeze(-1) == torch.arange(size, device=index.device)).to(like.dtype)


def flatten(tensors: Tensors) -> Tensor:
    """Put all entries, in their order, into one vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors.values()])


def unflatten(vector: Tensor, like: Tensors) -> Tensors:
    """Undo ``flatten``."""
    pieces = vector.split_with_sizes([tensor.numel() for tensor in like.values()])
    return {name: piece.view_as(like[name]) for name, piece in zip(like, pieces, strict=True)}
