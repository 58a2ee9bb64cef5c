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

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from metaloom.learners.solvers.model_based.memory_pass import MemoryPass, MemoryShape, MemoryState, Weights, step
from metaloom.learners.tensors import Tensors


def parameters(shape: MemoryShape, inputs: int, outputs: int, generator: Generator) -> Tensors:
    """Draw the weights for ``inputs`` numbers a step and ``outputs``: uniform within 1 / sqrt(width)."""
    bound, gates, left = shape.width**-0.5, 4 * shape.width, shape.width + shape.reads
    shapes = {
        "inputs.weight": (inputs, gates),
        "inputs.bias": (gates,),
        "recurrent.weight": (left, gates),
        "heads.weight": (shape.width, shape.reads + shape.heads),
        "heads.bias": (shape.reads + shape.heads,),
        "outputs.weight": (left, outputs),
        "outputs.bias": (outputs,),
    }
    return {name: torch.empty(one).uniform_(-bound, bound, generator=generator) for name, one in shapes.items()}


class MemoryRun(NamedTuple):
    """What a sequence leaves.

    Attributes:
        rows: The controller's states and what was read: [batch, steps, width + reads].
        readings: The weights of reading: [batch, steps, heads, slots].
        state: After the last step.
    """

    rows: Tensor
    readings: Tensor
    state: MemoryState


class ExternalMemory:
    """A controller and its memory, at one phi.

    ``forget`` is gamma; ``strength`` multiplies the cosines.
    """

    def __init__(self, phi: Tensors, shape: MemoryShape, forget: float, strength: float | Tensor) -> None:
        self.phi, self.shape, self.forget, self.strength = phi, shape, forget, strength
        self.weights = Weights(phi["recurrent.weight"], phi["heads.weight"], phi["heads.bias"])

    def empty(self, batch: int) -> MemoryState:
        """Return the state before the first step."""
        return MemoryState.empty(batch, self.shape, self.phi["outputs.bias"])

    def outputs(self, rows: Tensor) -> Tensor:
        """Map what a sequence leaves [..., width + reads] to outputs [..., outputs]."""
        return rows @ self.phi["outputs.weight"] + self.phi["outputs.bias"]

    def run(self, given: Tensor, state: MemoryState) -> MemoryRun:
        """Go through a batch of sequences [batch, steps, inputs]."""
        whole = torch.addmm(self.phi["inputs.bias"], given.flatten(0, 1), self.phi["inputs.weight"])
        gates = whole.view(*given.shape[:2], 4 * self.shape.width)
        if not gates.shape[1]:
            return MemoryRun(state.recurrent[:, None][:, :0], state.reading[:, None][:, :0], state)
        if not torch.is_grad_enabled():
            return self._plain(gates, state)
        rows, readings, *last = MemoryPass.apply(  # type: ignore[no-untyped-call]
            self.shape, self.forget, gates, self.strength, *self.weights, *state
        )
        return MemoryRun(rows, readings, MemoryState(rows[:, -1], *last))

    def _plain(self, gates: Tensor, state: MemoryState) -> MemoryRun:
        """Go through the steps one by one, and keep nothing for a gradient; by plain operations, which export too."""
        rows, readings = [], []
        for gate in gates.unbind(1):
            state, _ = step(state, gate, self.weights, self.shape, (self.forget, self.strength))
            rows.append(state.recurrent)
            readings.append(state.reading)
        return MemoryRun(torch.stack(rows, 1), torch.stack(readings, 1), state)
