r"""An external memory beside an LSTM: read by content, written to where it was read last or least.

Santoro, Bartunov, Botvinick, Wierstra and Lillicrap, 2016, https://arxiv.org/abs/1605.06065, section 3. Of the
controller's state h_t each head has a key k_t = tanh(W_k h_t) and a gate g_t = sigmoid(W_g h_t), and then

    w^w_t    = g_t w^r_{t-1} + (1 - g_t) w^lu_{t-1}       the weights of writing; w^lu is 1 at a head's own slot
    M_t(i)   = (1 - erased_t(i)) M_{t-1}(i) + sum over heads of w^w_t(i) k_t
    w^r_t(i) = softmax_i(strength * cosine(k_t, M_t(i)))
    w^u_t    = gamma w^u_{t-1} + sum over heads of (w^r_t + w^w_t)
    r_t      = sum_i w^r_t(i) M_t(i)

The slots used least by w^u_{t-1} are erased, and are the heads' own: head j has the j-th of them. The paper has no
strength: there it is 1. Which slots are used least is a choice that no gradient goes through; where two slots change
places the loss has a kink.
"""

from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.autograd.function import once_differentiable

from metaloom.learners.tensors import Tensors

EPSILON = 1e-4  # added to lengths: an empty slot has the cosine 0


class MemoryShape(NamedTuple):
    """The sizes of a controller of ``width`` with ``heads`` on ``slots`` of ``slot_width`` numbers."""

    width: int
    heads: int
    slots: int
    slot_width: int

    @property
    def reads(self) -> int:
        """The numbers that all heads read together."""
        return self.heads * self.slot_width

    def parameters(self, inputs: int, outputs: int, generator: Generator) -> Tensors:
        """Draw the weights for ``inputs`` numbers a step and ``outputs``: uniform within 1 / sqrt(width)."""
        bound, gates = self.width**-0.5, 4 * self.width
        shapes = {
            "inputs.weight": (inputs, gates),
            "inputs.bias": (gates,),
            "recurrent.weight": (self.width + self.reads, gates),
            "heads.weight": (self.width, self.reads + self.heads),
            "heads.bias": (self.reads + self.heads,),
            "outputs.weight": (self.width + self.reads, outputs),
            "outputs.bias": (outputs,),
        }
        return {name: torch.empty(shape).uniform_(-bound, bound, generator=generator) for name, shape in shapes.items()}


class MemoryState(NamedTuple):
    """What goes on from step to step, of a batch of sequences.

    Attributes:
        recurrent: h and the numbers read, in one row: [batch, width + heads * slot_width].
        cell: The LSTM's: [batch, width].
        memory: [batch, slots, slot_width].
        reading: w^r: [batch, heads, slots].
        usage: w^u, without a gradient: [batch, slots].
    """

    recurrent: Tensor
    cell: Tensor
    memory: Tensor
    reading: Tensor
    usage: Tensor

    @classmethod
    def empty(cls, batch: int, shape: MemoryShape, like: Tensor) -> Self:
        """Return the state before the first step: all is 0."""
        sizes = (
            (shape.width + shape.reads,),
            (shape.width,),
            (shape.slots, shape.slot_width),
            (shape.heads, shape.slots),
            (shape.slots,),
        )
        return cls(*(like.new_zeros(batch, *size) for size in sizes))

    def repeated(self, times: int) -> Self:
        """Return the state with each sequence ``times`` in a row: [batch * times, ...]."""
        return type(self)(*(one.repeat_interleave(times, 0) for one in self))


class MemoryRun(NamedTuple):
    """What a sequence leaves: its rows [batch, steps, width + reads], its readings, and the state after it."""

    rows: Tensor
    readings: list[Tensor]
    state: MemoryState


class ExternalMemory:
    """A controller and its memory, at one phi.

    ``forget`` is gamma; ``strength`` multiplies the cosines.
    """

    def __init__(self, phi: Tensors, shape: MemoryShape, forget: float, strength: float | Tensor) -> None:
        self.phi, self.shape, self.forget, self.strength = phi, shape, forget, strength

    def empty(self, batch: int) -> MemoryState:
        """Return the state before the first step."""
        return MemoryState.empty(batch, self.shape, self.phi["outputs.bias"])

    def outputs(self, rows: Tensor) -> Tensor:
        """Map what a sequence leaves [..., width + reads] to outputs [..., outputs]."""
        return rows @ self.phi["outputs.weight"] + self.phi["outputs.bias"]

    def run(self, given: Tensor, state: MemoryState) -> MemoryRun:
        """Go through a batch of sequences [batch, steps, inputs]."""
        phi, rows, hidden = self.phi, list[Tensor](), list[Tensor]()
        gates = given @ phi["inputs.weight"] + phi["inputs.bias"]
        heads = phi["heads.bias"].expand(*given.shape[:2], -1)
        by_step = zip(
            _WithProduct.apply(gates, phi["recurrent.weight"], rows).unbind(1),  # type: ignore[no-untyped-call]
            _WithProduct.apply(heads, phi["heads.weight"], hidden).unbind(1),  # type: ignore[no-untyped-call]
            strict=True,
        )
        left, readings = [], []
        for gate, head in by_step:
            rows.append(state.recurrent.detach())
            state = self._step(state, gate, head)
            hidden.append(state.recurrent[:, : self.shape.width].detach())
            left.append(state.recurrent)
            readings.append(state.reading)
        return MemoryRun(torch.stack(left, 1) if left else state.recurrent[:, None][:, :0], readings, state)

    def _step(self, state: MemoryState, gate: Tensor, head: Tensor) -> MemoryState:
        """Take one step; ``gate`` [batch, 4 * width] and ``head`` are added to the products with the weights."""
        shape, phi = self.shape, self.phi
        into, keep, value, out = torch.addmm(gate, state.recurrent, phi["recurrent.weight"].detach()).chunk(4, -1)
        cell = keep.sigmoid() * state.cell + into.sigmoid() * value.tanh()
        hidden = out.sigmoid() * cell.tanh()
        head = torch.addmm(head, hidden, phi["heads.weight"].detach())
        keys = head[:, : shape.reads].tanh().view(-1, shape.heads, shape.slot_width)
        blend = head[:, shape.reads :].sigmoid().unsqueeze(-1)  # [batch, heads, 1]
        place = state.usage.topk(shape.heads, largest=False).indices.unsqueeze(-1)  # [batch, heads, 1]
        own = torch.zeros_like(state.reading).scatter_(-1, place, 1.0)
        writing = torch.lerp(own, state.reading, blend)
        erased = state.memory.gather(1, place.expand(-1, -1, shape.slot_width))
        # one product writes the keys and takes out what the erased slots held
        memory = torch.baddbmm(
            state.memory, torch.cat([writing, own], 1).transpose(1, 2), torch.cat([keys, -erased], 1)
        )
        lengths = torch.linalg.vector_norm(memory, dim=-1).unsqueeze(1) + EPSILON  # [batch, 1, slots]
        directions = keys / (torch.linalg.vector_norm(keys, dim=-1, keepdim=True) + EPSILON)
        reading = F.softmax(self.strength * torch.bmm(directions, memory.transpose(1, 2)) / lengths, -1)
        with torch.no_grad():
            usage = self.forget * state.usage + (reading + writing).sum(1)
        return MemoryState(torch.cat([hidden, (reading @ memory).flatten(1)], -1), cell, memory, reading, usage)


class _WithProduct(torch.autograd.Function):
    """``given`` [batch, steps, n] itself; to it the caller adds, at each step, the product of a row with a weight.

    The steps take the weight as a constant, and append their rows [batch, m] to ``rows``. The weight's gradient is then
    one product over all steps in place of one for each step: a quarter of the time of a pass with its gradient.
    """

    @staticmethod
    def forward(ctx: Any, given: Tensor, weight: Tensor, rows: list[Tensor]) -> Tensor:
        ctx.rows = rows
        return given.view_as(given)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor, None]:
        rows = torch.stack(ctx.rows, 1).flatten(0, 1)  # [batch * steps, m]
        return given, rows.T @ given.flatten(0, 1), None
