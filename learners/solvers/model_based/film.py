r"""FiLM: a task vector scales and shifts the channels of a network, and so adapts its features to the task.

Perez et al., 2018, https://arxiv.org/abs/1709.07871, generated as in CNAPs (Requeima et al., 2019, section 3.2):

    y     <- gamma * y + beta                       after each batch norm
    gamma  = gamma_scale * g(z) + 1,    beta = beta_scale * b(z),    penalty = |gamma_scale|^2 + |beta_scale|^2

A batch norm's own scale and shift absorb it: (w, c) becomes (gamma w, gamma c + beta). The scales start near 0, so that
the network starts as it is. In a network without batch norm FiLM acts on the features alone.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.networks.base import Network, linear_parameters
from metaloom.learners.tensors import Tensors, part, under

FEATURES = "features"  # the place of FiLM in a network without batch norm
SCALE, SHIFT = "gamma", "beta"
START = 0.001  # standard deviation of the scales at the start


class Modulation(NamedTuple):
    """Scale and shift of a place's channels, each [channels]."""

    gamma: Tensor
    beta: Tensor


def places(network: Network | None, features: tuple[int, ...]) -> dict[str, int]:
    """Return where FiLM acts, with the channels: each batch norm that has a scale and a shift, or the features."""
    theta = {} if network is None else network.initial(Generator())
    layers = () if network is None else network.norm_layers()
    found = {layer: len(theta[f"{layer}.weight"]) for layer in layers if f"{layer}.weight" in theta}
    return found or {FEATURES: math.prod(features)}


def film_parameters(channels: dict[str, int], width: int, generator: Generator) -> Tensors:
    """Draw the generators of every place, of a task vector [width]."""
    phi: Tensors = {}
    for place, count in channels.items():
        own = linear_parameters("shared", width, width, generator)
        for name in (SCALE, SHIFT):
            own |= linear_parameters(f"{name}.hidden", width, width, generator)
            own |= linear_parameters(f"{name}.output", width, count, generator)
            own[f"{name}.scale"] = START * torch.randn(count, generator=generator)
        phi |= under(place, own)
    return phi


def modulations(phi: Tensors, task: Tensor) -> dict[str, Modulation]:
    """Generate every place's scale and shift from the task vector [width]."""
    found = {}
    for place in dict.fromkeys(name.rpartition("/")[0] for name in phi):
        own = part(phi, place)
        hidden = F.relu(_linear(own, "shared", task))
        gamma, beta = (own[f"{name}.scale"] * _branch(own, name, hidden) for name in (SCALE, SHIFT))
        found[place] = Modulation(gamma + 1, beta)
    return found


def modulated(theta: Tensors, film: dict[str, Modulation]) -> Tensors:
    """Return the network's parameters with each modulated batch norm's scale and shift."""
    moved = dict(theta)
    for place, (gamma, beta) in film.items():
        if place != FEATURES:
            moved[f"{place}.weight"] = gamma * theta[f"{place}.weight"]
            moved[f"{place}.bias"] = gamma * theta[f"{place}.bias"] + beta
    return moved


def penalty(phi: Tensors) -> Tensor:
    """Return the sum of the squared scales, []."""
    return torch.stack([value.square().sum() for name, value in phi.items() if name.endswith(".scale")]).sum()


def _branch(own: Tensors, name: str, hidden: Tensor) -> Tensor:
    return _linear(own, f"{name}.output", F.relu(_linear(own, f"{name}.hidden", hidden)))


def _linear(own: Tensors, name: str, x: Tensor) -> Tensor:
    return F.linear(x, own[f"{name}.weight"], own[f"{name}.bias"])
