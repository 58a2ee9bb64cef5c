r"""Recurrent cells in plain operations: the gated recurrent unit and the LSTM.

Cho et al., 2014, https://arxiv.org/abs/1406.1078, section 2.3, with the reset gate after the product as in torch:

    r, z = sigmoid(W_rz x + U_rz h),    n = tanh(W_n x + r * (U_n h)),    h' = (1 - z) n + z h

Hochreiter and Schmidhuber, 1997, https://doi.org/10.1162/neco.1997.9.8.1735, with the forget gate of Gers et al., 2000:

    i, f, o = sigmoid(W x + U h),    c' = f c + i tanh(W_g x + U_g h),    h' = o tanh(c')

torch 2.13's GRU raises under ``vmap`` and its LSTM in forward mode; these differentiate to any order in every strategy.
Each step is a few small operations, whose number is what a pass costs: about 10 times the length for each layer.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.tensors import Tensors

FORGET = 1.0  # bias of the forget gates at the start, so that what was read long ago is kept
State = tuple[Tensor, ...]  # the hidden values [n, width] first


class Cell(ABC):
    """One layer's step. Parameters: ``NAME.input`` and ``NAME.hidden``, each with weight and bias.

    Class attributes:
        gates: How many times ``width`` rows a weight has.
        tensors: How many tensors a state has.
    """

    gates: ClassVar[int]
    tensors: ClassVar[int]

    @classmethod
    def parameters(cls, name: str, inputs: int, width: int, generator: Generator) -> Tensors:
        """Draw a layer, uniform in +-1/sqrt(width) as torch does."""
        bound, rows = 1 / math.sqrt(width), cls.gates * width
        theta: Tensors = {}
        for place, columns in (("input", inputs), ("hidden", width)):
            weight = torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)
            bias = torch.empty(rows).uniform_(-bound, bound, generator=generator)
            theta |= {f"{name}.{place}.weight": weight, f"{name}.{place}.bias": bias}
        return theta

    @staticmethod
    @abstractmethod
    def step(gates: Tensor, recurrent: Tensor, state: State) -> State:
        """Return the next state from W x [n, gates * width], U h likewise, and the state."""

    @classmethod
    def unroll(
        cls, theta: Tensors, name: str, inputs: Tensor, observed: Tensor | None, state: State | None = None
    ) -> tuple[Tensor, State]:
        """Read inputs [n, length, d]: the hidden values [n, length, width] and the last state.

        Args:
            theta: The parameters.
            name: The layer's.
            inputs: The series.
            observed: Bool [n, length]; a step that was not observed leaves the state as it is. None: all were.
            state: Before the first step; None: zeros.
        """
        weight, bias = theta[f"{name}.hidden.weight"], theta[f"{name}.hidden.bias"]
        if state is None:
            zero = inputs.new_zeros(len(inputs), weight.shape[1])
            state = (zero,) * cls.tensors
        read = F.linear(inputs, theta[f"{name}.input.weight"], theta[f"{name}.input.bias"]).unbind(1)
        seen = None if observed is None else observed[..., None].unbind(1)  # each [n, 1]
        hidden = []
        for place, gates in enumerate(read):
            moved = cls.step(gates, F.linear(state[0], weight, bias), state)
            if seen is not None:
                moved = tuple(torch.where(seen[place], new, old) for new, old in zip(moved, state, strict=True))
            state = moved
            hidden.append(state[0])
        return torch.stack(hidden, 1), state


class GRUCell(Cell):
    """Gates in the order r, z, n."""

    gates, tensors = 3, 1

    @staticmethod
    def step(gates: Tensor, recurrent: Tensor, state: State) -> State:
        (hidden,) = state
        double = 2 * hidden.shape[-1]
        reset, keep = torch.sigmoid(gates[:, :double] + recurrent[:, :double]).chunk(2, -1)
        new = torch.tanh(gates[:, double:] + reset * recurrent[:, double:])
        return (new + keep * (hidden - new),)


class LSTMCell(Cell):
    """Gates in the order i, f, o, g."""

    gates, tensors = 4, 2

    @classmethod
    def parameters(cls, name: str, inputs: int, width: int, generator: Generator) -> Tensors:
        """Draw a layer whose forget gates are open."""
        theta = super().parameters(name, inputs, width, generator)
        theta[f"{name}.input.bias"][width : 2 * width] += FORGET
        return theta

    @staticmethod
    def step(gates: Tensor, recurrent: Tensor, state: State) -> State:
        hidden, cell = state
        total, three = gates + recurrent, 3 * hidden.shape[-1]
        let_in, keep, let_out = torch.sigmoid(total[:, :three]).chunk(3, -1)
        cell = keep * cell + let_in * torch.tanh(total[:, three:])
        return let_out * torch.tanh(cell), cell


CELLS: dict[str, type[Cell]] = {"gru": GRUCell, "lstm": LSTMCell}
