r"""Fast weights: networks turn the gradients of a loss into the weights of one task or of one example.

Munkhdalai and Yu, 2017, https://arxiv.org/abs/1703.00837, section 3: every coordinate of a gradient is read as
(log|g| / p, sign g), and the same small network maps it to that coordinate's fast weight. A layer with slow weights W
and fast ones W* is augmented: act(W x) + act(W* x).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.knowledge.update_rules.learned_optimizers import Memory, log_and_sign, lstm, lstm_parameters
from metaloom.learners.networks.base import linear_layers
from metaloom.learners.tensors import Tensors, part, under

LAYERS = 3  # of the network that maps one gradient
RECURRENT, OUTPUT = "recurrent", "output"
Losses = Callable[[Tensors, Tensor], Tensor]


def reader_parameters(hidden: int, generator: Generator) -> Tensors:
    """Draw the network that maps one gradient to fast weights."""
    return linear_layers("layer", [2, *[hidden] * (LAYERS - 1), 1], generator)


def summary_parameters(hidden: int, generator: Generator) -> Tensors:
    """Draw the network that maps several gradients, in turn, to fast weights."""
    recurrent = under(RECURRENT, lstm_parameters("layer", 2, hidden, generator))
    return recurrent | under(OUTPUT, linear_layers("layer", [hidden, 1], generator))


def gradients(weights: Tensors, losses: Losses, inputs: Tensor, *, second_order: bool) -> Tensors:
    """Return each example's own gradient by the weights, [n, ...] by name.

    Args:
        weights: Where they are taken.
        losses: Maps a copy of the weights for each example, [n, ...] each, and the inputs to losses [n].
        inputs: The examples [n, d].
        second_order: Whether the gradients can be differentiated again, where that is wanted (not under ``no_grad``).
    """
    keep = second_order and torch.is_grad_enabled()
    with torch.enable_grad():
        copies = {}
        for name, value in weights.items():
            copy = value.expand(len(inputs), *value.shape)
            copies[name] = copy if keep and copy.requires_grad else copy.detach().requires_grad_()
        total = losses(copies, inputs if keep else inputs.detach()).sum()
        slopes = torch.autograd.grad(total, list(copies.values()), create_graph=keep)
    return dict(zip(copies, slopes, strict=True))


def read(phi: Tensors, slopes: Tensors, p: float, activation: Callable[[Tensor], Tensor]) -> Tensors:
    """Map gradients of any shape, by name, to fast weights of the same shape."""
    return {name: _read(phi, log_and_sign(value, p), activation).squeeze(-1) for name, value in slopes.items()}


def summarized(phi: Tensors, slopes: Tensors, p: float) -> Tensors:
    """Map the gradients of several examples [n, ...], in their order, to the fast weights of all of them [...]."""
    recurrent, output = part(phi, RECURRENT), part(phi, OUTPUT)
    found = {}
    for name, value in slopes.items():
        shape, steps = value.shape[1:], log_and_sign(value.flatten(1), p)  # [n, coordinates, 2]
        hidden = output["layer0.weight"].shape[1]
        memory = Memory(*[steps.new_zeros(steps.shape[1], hidden)] * 2)
        for x in steps:
            memory = lstm(recurrent, "layer", x, memory)
        found[name] = F.linear(memory.hidden, output["layer0.weight"], output["layer0.bias"]).view(shape)
    return found


def _read(phi: Tensors, x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    for layer in range(LAYERS):
        x = F.linear(x if layer == 0 else activation(x), phi[f"layer{layer}.weight"], phi[f"layer{layer}.bias"])
    return x
