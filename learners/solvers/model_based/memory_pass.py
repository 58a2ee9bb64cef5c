r"""A pass over sequences with an external memory, and its gradient written out.

``memory.py`` has the equations. Autograd takes a product of matrices for the weights' gradient at every step, and keeps
and adds a copy of the memory for every operation on it. Here the products of all steps are one, and the gradient of the
memory is one tensor that goes back through the steps in place: little more than half the time.

With dM, dw^r and dh the gradients by a step's memory, its reading and its controller's state, and c the cosines:

    dw^r  += dr M^T                       dz = w^r (dw^r - sum dw^r w^r)         of the softmax of z = strength c
    dM    += [w^r, G]^T [dr, direction] + M (dlength / |M|)                      G = strength dz / length
    dw^w   = k dM^T,  dk += w^w dM,       dM = 0 at the erased slots,            dw^r of the step before = gate dw^w
"""

from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# slopes of functions by their values, each one pass
tanh_backward, sigmoid_backward = torch.ops.aten.tanh_backward, torch.ops.aten.sigmoid_backward
softmax_backward = torch.ops.aten._softmax_backward_data
EPSILON = 1e-4  # added to lengths: an empty slot has the cosine 0
TINY = 1e-30  # in place of the length of an empty slot, whose cosine has the slope 0


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
        return type(self)(*(one.unsqueeze(1).expand(-1, times, *one.shape[1:]).flatten(0, 1) for one in self))


class Kept(NamedTuple):
    """What a step keeps for its gradient, beside the states before and after it."""

    gates: tuple[Tensor, Tensor, Tensor, Tensor]  # into, keep, value and out, after their functions
    squashed: Tensor  # tanh of the cell
    keys: Tensor  # [batch, heads, slot_width]
    blend: Tensor  # [batch, heads, 1]
    place: Tensor  # each head's own slot: int64 [batch, heads, 1]
    own: Tensor  # the same as weights: [batch, heads, slots]
    writing: Tensor
    directions: Tensor
    lengths: Tensor  # [batch, 1, slots]
    cosines: Tensor


class Weights(NamedTuple):
    """The weights that every step uses: [width + reads, 4 width], [width, reads + heads] and its bias."""

    recurrent: Tensor
    heads: Tensor
    bias: Tensor


def step(
    state: MemoryState, gate: Tensor, weights: Weights, shape: MemoryShape, knobs: tuple[float, float | Tensor]
) -> tuple[MemoryState, Kept]:
    """Take one step.

    Args:
        state: Before it.
        gate: What the step's inputs add to the LSTM's four gates: [batch, 4 * width].
        weights: The weights.
        shape: The sizes.
        knobs: gamma, and the strength of reading.
    """
    forget, strength = knobs
    into, keep, value, out = torch.addmm(gate, state.recurrent, weights.recurrent).chunk(4, -1)
    gates = (into.sigmoid(), keep.sigmoid(), value.tanh(), out.sigmoid())
    cell = gates[1] * state.cell + gates[0] * gates[2]
    squashed = cell.tanh()
    hidden = gates[3] * squashed
    made = torch.addmm(weights.bias, hidden, weights.heads)
    keys = made[:, : shape.reads].tanh().view(-1, shape.heads, shape.slot_width)
    blend = made[:, shape.reads :].sigmoid().unsqueeze(-1)
    place = state.usage.topk(shape.heads, largest=False).indices.unsqueeze(-1)
    own = torch.zeros_like(state.reading).scatter_(-1, place, 1.0)
    writing = torch.lerp(own, state.reading, blend)
    memory = state.memory.clone().scatter_(1, place.expand(-1, -1, shape.slot_width), 0.0)
    memory.baddbmm_(writing.transpose(1, 2), keys)
    lengths = torch.linalg.vector_norm(memory, dim=-1).unsqueeze(1) + EPSILON
    directions = keys / (torch.linalg.vector_norm(keys, dim=-1, keepdim=True) + EPSILON)
    cosines = torch.bmm(directions, memory.transpose(1, 2)) / lengths
    reading = F.softmax(strength * cosines, -1)
    usage = forget * state.usage + (reading + writing).sum(1)
    recurrent = torch.cat([hidden, torch.bmm(reading, memory).flatten(1)], -1)
    after = MemoryState(recurrent, cell, memory, reading, usage)
    return after, Kept(gates, squashed, keys, blend, place, own, writing, directions, lengths, cosines)


class Slopes(NamedTuple):
    """The gradients that go back from step to step, by the parts of a state that have one."""

    recurrent: Tensor
    cell: Tensor
    memory: Tensor
    reading: Tensor


def back(
    slopes: Slopes, before: MemoryState, after: MemoryState, kept: Kept, weights: Weights, strength: float | Tensor
) -> tuple[Slopes, Tensor, Tensor, Tensor]:
    """Go back through a step; ``slopes.memory`` is changed in place.

    Returns:
        The gradients before the step; and those of its gates [batch, 4 * width], of its heads [batch, reads + heads],
        and of the strength.
    """
    width, memory = after.cell.shape[1], slopes.memory
    read = slopes.recurrent[:, width:].view_as(kept.keys)
    by_reading = slopes.reading + torch.bmm(read, after.memory.transpose(1, 2))
    by_score = softmax_backward(by_reading, after.reading, -1, memory.dtype)
    by_cosine = strength * by_score / kept.lengths
    by_direction = torch.bmm(by_cosine, after.memory)
    by_length = -(by_cosine * kept.cosines).sum(1).unsqueeze(-1) / (kept.lengths - EPSILON).clamp_min(TINY).transpose(
        1, 2
    )
    memory.addcmul_(after.memory, by_length)
    pairs = torch.cat([after.reading, by_cosine], 1), torch.cat([read, kept.directions], 1)
    memory.baddbmm_(pairs[0].transpose(1, 2), pairs[1])
    by_writing = torch.bmm(kept.keys, memory.transpose(1, 2))
    by_key = torch.bmm(kept.writing, memory) + _by_vector(by_direction, kept.keys)
    memory.scatter_(1, kept.place.expand(-1, -1, memory.shape[-1]), 0.0)
    by_blend = (by_writing * (before.reading - kept.own)).sum(-1)
    by_keys, by_gate = tanh_backward(by_key, kept.keys), sigmoid_backward(by_blend, kept.blend.squeeze(-1))
    by_heads = torch.cat([by_keys.flatten(1), by_gate], -1)
    by_hidden = torch.addmm(slopes.recurrent[:, :width], by_heads, weights.heads.T)
    by_gates, by_cell = _through_cell(by_hidden, slopes.cell, before.cell, kept)
    earlier = Slopes(by_gates @ weights.recurrent.T, by_cell, memory, kept.blend * by_writing)
    return earlier, by_gates, by_heads, (by_score * kept.cosines).sum()


def _by_vector(by_direction: Tensor, vector: Tensor) -> Tensor:
    """Return the gradient by a vector from that by vector / (its length + EPSILON)."""
    length = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    along = (by_direction * vector).sum(-1, keepdim=True) / (length * (length + EPSILON)).clamp_min(TINY)
    found: Tensor = (by_direction - vector * along) / (length + EPSILON)
    return found


def _through_cell(by_hidden: Tensor, by_cell: Tensor, cell: Tensor, kept: Kept) -> tuple[Tensor, Tensor]:
    """Go back through the LSTM's cell: return the gradients by the gates before their functions, and by ``cell``."""
    into, keep, value, out = kept.gates
    by_cell = by_cell + tanh_backward(by_hidden * out, kept.squashed)
    each = (
        sigmoid_backward(by_cell * value, into),
        sigmoid_backward(by_cell * cell, keep),
        tanh_backward(by_cell * into, value),
        sigmoid_backward(by_hidden * kept.squashed, out),
    )
    return torch.cat(each, -1), by_cell * keep


class MemoryPass(torch.autograd.Function):
    """All steps of a batch of sequences; its gradient cannot be differentiated again.

    Of gates [batch, steps, 4 * width], a strength, the weights and the state before the first step it returns the rows
    [batch, steps, width + reads], the readings [batch, steps, heads, slots], and the last cell, memory, reading, usage.
    """

    @staticmethod
    def forward(
        ctx: Any, shape: MemoryShape, forget: float, gates: Tensor, strength: float | Tensor, *parts: Tensor
    ) -> tuple[Tensor, ...]:
        weights, states, kept = Weights(*parts[:3]), [MemoryState(*parts[3:])], list[Kept]()
        for gate in gates.unbind(1):
            after, one = step(states[-1], gate, weights, shape, (forget, strength))
            states.append(after)
            kept.append(one)
        ctx.strength, ctx.weights, ctx.states, ctx.kept = strength, weights, states, kept
        rows, readings = (
            torch.stack([getattr(one, name) for one in states[1:]], 1) for name in ("recurrent", "reading")
        )
        last = tuple(one.clone() for one in states[-1][1:])  # else the graph would hold its own outputs
        ctx.mark_non_differentiable(readings, last[-1])
        return (rows, readings, *last)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, rows: Tensor, readings: Tensor, cell: Tensor, memory: Tensor, reading: Tensor, usage: Tensor
    ) -> tuple[Tensor | None, ...]:
        slopes = Slopes(torch.zeros_like(rows[:, 0]), cell, memory.clone(), reading)
        by_gates, by_heads, by_strength = list[Tensor](), list[Tensor](), torch.zeros_like(rows[0, 0, 0])
        for index in reversed(range(len(ctx.kept))):
            slopes = slopes._replace(recurrent=slopes.recurrent + rows[:, index])
            before, after = ctx.states[index], ctx.states[index + 1]
            slopes, gate, heads, strength = back(slopes, before, after, ctx.kept[index], ctx.weights, ctx.strength)
            by_gates.append(gate)
            by_heads.append(heads)
            by_strength += strength
        gates, heads = torch.stack(by_gates[::-1], 1), torch.stack(by_heads[::-1], 1)
        passed = torch.stack([one.recurrent for one in ctx.states], 1)
        hidden = passed[:, 1:, : cell.shape[1]].flatten(0, 1)
        return (
            None,
            None,
            gates,
            by_strength if isinstance(ctx.strength, Tensor) else None,
            passed[:, :-1].flatten(0, 1).T @ gates.flatten(0, 1),
            hidden.T @ heads.flatten(0, 1),
            heads.sum((0, 1)),
            *slopes,
            None,
        )
