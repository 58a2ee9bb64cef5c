"""The cell of the update rules that are networks: an LSTM shared by all coordinates, in plain operations."""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from metaloom.learners.tensors import Tensors

FORGET = 1.0  # bias of the forget gates at the start, so that a gradient is remembered


class Memory(NamedTuple):
    """What an LSTM layer keeps: hidden and cell, each [coordinates, hidden]."""

    hidden: Tensor
    cell: Tensor


def log_and_sign(values: Tensor, p: float) -> Tensor:
    """Split numbers of any size into size and sign, both within about [-1, 1]: [n] to [n, 2] (appendix A)."""
    size = torch.log(values.abs().clamp_min(math.exp(-p))) / p
    return torch.stack([size, (values * math.exp(p)).clamp(-1, 1)], -1)


def lstm_parameters(name: str, inputs: int, hidden: int, generator: Generator) -> Tensors:
    """Draw an LSTM layer, uniform in +-1/sqrt(hidden) as torch does; gates in the order i, f, o, g."""
    bound = 1 / math.sqrt(hidden)
    bias = torch.zeros(4 * hidden)
    bias[hidden : 2 * hidden] = FORGET
    return {
        f"{name}.input": torch.empty(4 * hidden, inputs).uniform_(-bound, bound, generator=generator),
        f"{name}.recurrent": torch.empty(4 * hidden, hidden).uniform_(-bound, bound, generator=generator),
        f"{name}.bias": bias,
    }


def lstm(phi: Tensors, name: str, x: Tensor, before: Memory) -> Memory:
    """Take one step of an LSTM layer: x [n, inputs]; plain operations, so that it differentiates twice."""
    width = before.hidden.shape[-1]
    gates = torch.addmm(phi[f"{name}.bias"], x, phi[f"{name}.input"].T) + before.hidden @ phi[f"{name}.recurrent"].T
    open_in, keep, open_out = torch.sigmoid(gates[:, : 3 * width]).chunk(3, dim=-1)
    cell = keep * before.cell + open_in * torch.tanh(gates[:, 3 * width :])
    return Memory(open_out * torch.tanh(cell), cell)
