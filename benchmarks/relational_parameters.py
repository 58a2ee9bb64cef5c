"""The engine's names and shapes of what ``relational_networks`` hold: both then start from the same numbers."""

import re

import torch
from torch import Tensor

from benchmarks.relational_networks import Dense, Graph, Relation, Relational, Snail
from metaloom.learners.tensors import Tensors

ENCODER = "initialization"
CONVOLUTION, NORM = 4, 1  # layers of a block of ``blocks`` that pools, and the place of its norm


def blocks_of(name: str, pooled: int) -> tuple[int, str, str]:
    """Return the block, ``conv`` or ``norm``, and the part of a parameter ``N.part`` of ``blocks``.

    The first ``pooled`` blocks have four layers, the others three.
    """
    place, part = name.split(".")
    block, layer = divmod(int(place), CONVOLUTION)
    if int(place) >= CONVOLUTION * pooled:
        later, layer = divmod(int(place) - CONVOLUTION * pooled, CONVOLUTION - 1)
        block = pooled + later
    return block, "norm" if layer == NORM else "conv", part


def of_relation(name: str) -> str | None:
    """Name a parameter of ``Relation``; None for a convolution's bias, which the norm after it removes."""
    module, rest = name.split(".", 1)
    if module == "scores":
        place, part = rest.split(".")
        return f"prediction/{'hidden' if place == '1' else 'score'}.{part}"
    block, kind, part = blocks_of(rest, 2)
    place_of = ENCODER if module == "encoder" else "prediction"
    return None if (kind, part) == ("conv", "bias") else f"{place_of}/{kind}{block}.{part}"


def of_encoder(name: str) -> str | None:
    """Name a parameter of an encoder all of whose blocks pool, which stands in a sequence."""
    block, kind, part = blocks_of(name.removeprefix("encoder.0."), 4)
    return None if (kind, part) == ("conv", "bias") else f"{ENCODER}/{kind}{block}.{part}"


def of_graph(name: str) -> str | None:
    """Name a parameter of ``Graph``."""
    if name.startswith("encoder"):
        return of_encoder(name)
    if found := re.fullmatch(r"edges\.(\d)\.(\d)\.(linear|norm)\.(\w+)", name):
        block, layer, kind, part = found.groups()
        return f"prediction/block{block}.{'edge' if kind == 'linear' else 'norm'}{layer}.{part}"
    if found := re.fullmatch(r"nodes\.(\d)\.(linear|norm)\.(\w+)", name):
        block, kind, part = found.groups()
        return f"prediction/block{block}.{'node' if kind == 'linear' else 'norm'}.{part}"
    if found := re.fullmatch(r"edge\.(\d)\.weight", name):
        return f"prediction/block{found[1]}.edge.weight"
    return f"prediction/{name}"


def of_snail(name: str, dilations: tuple[int, ...]) -> str | None:
    """Name a parameter of ``Snail``; None for the bias of keys, which moves no attention."""
    if name.startswith("encoder"):
        return of_encoder(name)
    if name.startswith("last"):
        return f"prediction/{name}"
    _, place, part = name.split(".", 2)
    block, layer = divmod(int(place), 1 + len(dilations))
    if layer == 0:
        return None if part == "keys.bias" else f"prediction/attention{block}.{part}"
    return f"prediction/temporal{block}.{dilations[layer - 1]}.{part}"


def own_name(network: Relational, name: str) -> str | None:
    """Return the engine's name of a parameter; None for one that it leaves out, because it changes nothing."""
    match network:
        case Relation():
            return of_relation(name)
        case Graph():
            return of_graph(name)
        case Snail():
            dense = [layer.dilation for layer in network.layers if isinstance(layer, Dense)]
            return of_snail(name, tuple(dict.fromkeys(dense)))
    raise TypeError(f"{type(network).__name__} has no names here")


def own_shape(value: Tensor) -> Tensor:
    """Return a causal convolution's kernel [filters, inputs, 2] as a layer of the present and the past; others stay."""
    return torch.cat([value[..., 1], value[..., 0]], 1) if value.ndim == 3 else value


def plain_shape(value: Tensor, like: Tensor) -> Tensor:
    """Return what ``own_shape`` made in the shape of the plain network's."""
    return torch.stack(value.chunk(2, dim=1)[::-1], -1) if like.ndim == 3 else value


def own_parameters(network: Relational) -> Tensors:
    """Return the engine's parameters of the same values."""
    named = ((own_name(network, name), value) for name, value in network.named_parameters())
    return {name: own_shape(value.detach()).clone() for name, value in named if name is not None}
