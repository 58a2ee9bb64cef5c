r"""Update rules that are learned: an LSTM, shared by all coordinates, reads each one's gradient and moves it.

``learned_optimizer`` is Andrychowicz et al., 2016, https://arxiv.org/abs/1606.04474, equations 2 and 3 and section 2.1:

    theta_t+1 = theta_t + rate * g_t,    [g_t, h_t+1] = m(grad f(theta_t), h_t, phi)
    L(phi)    = sum_t f(theta_t)         (inner.trajectory_loss)

m has two layers, and each coordinate its own hidden state, so that it serves networks of any size. The paper takes grad
f as a constant in the outer gradient, and so does the method (``second_order: false``): the hypergradient is biased,
and stable. Differentiated, it is exact. Learned over short trajectories, m may diverge on longer ones.

``meta_lstm`` is Ravi and Larochelle, 2017, https://openreview.net/forum?id=rJY0-Kcll, section 3.1 and equations 2 to 4,
which read gradient descent as the cell of an LSTM and learn its gates:

    theta_t = f_t * theta_t-1 - i_t * grad_t
    i_t = sigmoid(W_I [h_t, theta_t-1, i_t-1] + b_I),    f_t = sigmoid(W_F [h_t, theta_t-1, f_t-1] + b_F)

h_t is the hidden state of an LSTM that reads gradient and loss, each as (log|.| / p, sign). i_t is a learning rate and
f_t a decay, for each coordinate and step. They start at ``rate`` and ``keep`` for any input (small W): gradient descent
with a little decay. The start theta_0 is learned by the initialization. The paper takes gradient and loss as constants
in the outer gradient (``second_order: false``); here they are differentiated, so that the hypergradient is exact. Costs
one more forward pass per step, for the loss.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
from torch import Generator, Tensor

from metaloom.learners.domains import Bounds, Int, Learned, Real
from metaloom.learners.knowledge.update_rules.base import (
    NETWORK,
    RATES,
    UPDATE_RULES,
    LayeredConfig,
    UpdateConfig,
    UpdateRule,
)
from metaloom.learners.tensors import InnerState, Tensors, add, flatten, part, under, unflatten

FORGET = 1.0  # bias of the forget gates at the start, so that a gradient is remembered
BETWEEN = Bounds(above=0, below=1)
GATES = ("keep", "rate")


class Memory(NamedTuple):
    """What an LSTM layer keeps: hidden and cell, each [coordinates, hidden]."""

    hidden: Tensor
    cell: Tensor


class RecurrentRule(UpdateRule):
    """A rule that is one network for all coordinates; its settings have ``second_order``."""

    config: Any
    learns = True

    @property
    def approximation(self) -> str:
        return "" if self.config.second_order else "the inner gradient counts as a constant (second_order: false)"


def log_and_sign(values: Tensor, p: float) -> Tensor:
    """Split numbers of any size into size and sign, both within about [-1, 1]: [n] to [n, 2].

    Andrychowicz et al., appendix A: (log|v| / p, sign v) where |v| >= e^-p, else (-1, e^p v).
    """
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


@dataclass(frozen=True)
class LearnedOptimizerConfig(LayeredConfig):
    """The network's size, and what scales its output.

    Attributes:
        rate: Times the network's output.
        hidden: Width of each LSTM layer.
        layers: Number of LSTM layers.
        p: The range of the preprocessing: gradients below e^-p count as small.
        second_order: Differentiate the inner gradient too; the paper holds it constant.
    """

    rate: Annotated[float | Learned, Real(1e-3, 1.0, log=True, per=RATES), Bounds(above=0)] = 0.1
    hidden: Annotated[int, Int(1, 256, log=True)] = 20
    layers: Annotated[int, Int(1, 4)] = 2
    p: Annotated[float, Real(1.0, 20.0, per=()), Bounds(above=0)] = 10.0
    second_order: bool = True


@UPDATE_RULES.register("learned_optimizer")
class LearnedOptimizer(RecurrentRule):
    """A coordinatewise LSTM; its hidden and cell states are the buffers, [layers, coordinates, hidden]."""

    config: LearnedOptimizerConfig

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        hidden, bound = self.config.hidden, 1 / math.sqrt(self.config.hidden)
        net: Tensors = {}
        for layer in range(self.config.layers):
            net |= lstm_parameters(f"layer{layer}", hidden if layer else 2, hidden, generator)
        net["output.weight"] = torch.empty(1, hidden).uniform_(-bound, bound, generator=generator)
        net["output.bias"] = torch.zeros(1)
        return under(NETWORK, net) | super().init(theta, generator)

    def begin(self, theta: Tensors) -> Tensors:
        adapted = list(self.adapted(theta).values())
        shape = (self.config.layers, sum(value.numel() for value in adapted), self.config.hidden)
        return {name: adapted[0].new_zeros(shape) for name in ("hidden", "cell")}

    def step(self, phi: Tensors, state: InnerState, gradient: Tensors, index: int) -> InnerState:
        slopes = flatten(gradient)
        before = [Memory(*pair) for pair in zip(state.buffers["hidden"], state.buffers["cell"], strict=True)]
        moves, after = self.respond(phi, slopes if self.config.second_order else slopes.detach(), before)
        steps = {name: self.rate(phi, name, index) * move for name, move in unflatten(moves, gradient).items()}
        hidden, cell = (torch.stack(values) for values in zip(*after, strict=True))
        return InnerState(add(state.theta, steps), {"hidden": hidden, "cell": cell})

    def respond(self, phi: Tensors, slopes: Tensor, before: list[Memory]) -> tuple[Tensor, list[Memory]]:
        """Return each coordinate's move before the rate, [n], and the layers' memory, for gradients ``slopes`` [n]."""
        net, after = part(phi, NETWORK), []
        x = log_and_sign(slopes, self.config.p)
        for layer, memory in enumerate(before):
            after.append(lstm(net, f"layer{layer}", x, memory))
            x = after[-1].hidden
        return (x @ net["output.weight"].T + net["output.bias"]).squeeze(-1), after


@dataclass(frozen=True)
class MetaLSTMConfig(UpdateConfig):
    """Where the gates start, and the network's size.

    Attributes:
        rate: The input gate at the start: the rate of the gradient descent it starts as. The paper's bias
            in [-5, -4] is 0.007 to 0.018.
        keep: The forget gate at the start; the paper's bias in [4, 6] is 0.982 to 0.9975.
        gate_spread: The gates' weights start in U[-s, s]; 0 starts exactly as gradient descent.
        hidden: Width of the LSTM.
        p: The range of the preprocessing: what is below e^-p counts as small.
        second_order: Differentiate the inner gradient and loss too; the paper holds them constant.
    """

    rate: Annotated[float, Real(1e-4, 0.5, log=True, per=()), BETWEEN] = 0.01
    keep: Annotated[float, Real(0.9, 0.9999, per=()), BETWEEN] = 0.9975
    gate_spread: Annotated[float, Real(0.0, 0.5, per=())] = 0.01
    hidden: Annotated[int, Int(1, 256, log=True)] = 20
    p: Annotated[float, Real(1.0, 20.0, per=()), Bounds(above=0)] = 10.0
    second_order: bool = True


@UPDATE_RULES.register("meta_lstm")
class MetaLSTM(RecurrentRule):
    """Buffers: the LSTM's hidden and cell [coordinates, hidden], both gates [coordinates], the loss []."""

    config: MetaLSTMConfig
    reads_loss = True

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        hidden, spread = self.config.hidden, self.config.gate_spread
        net = lstm_parameters("layer0", 4, hidden, generator)
        for gate in GATES:
            start = getattr(self.config, gate)
            net[f"{gate}.weight"] = torch.empty(1, hidden + 2).uniform_(-spread, spread, generator=generator)
            net[f"{gate}.bias"] = torch.full((1,), math.log(start / (1 - start)))
        return under(NETWORK, net)

    def begin(self, theta: Tensors) -> Tensors:
        adapted = list(self.adapted(theta).values())
        count = sum(value.numel() for value in adapted)
        buffers = {name: adapted[0].new_zeros(count, self.config.hidden) for name in ("hidden", "cell")}
        return buffers | {gate: adapted[0].new_zeros(count) for gate in GATES} | {"loss": adapted[0].new_zeros(())}

    def step(self, phi: Tensors, state: InnerState, gradient: Tensors, index: int) -> InnerState:
        slopes, loss = flatten(gradient), state.buffers["loss"]
        read = (slopes, loss) if self.config.second_order else (slopes.detach(), loss.detach())
        before = flatten({name: state.theta[name] for name in gradient})
        buffers = self._gates(part(phi, NETWORK), state.buffers, before, *read)
        moved = buffers["keep"] * before - buffers["rate"] * read[0]
        return InnerState(state.theta | unflatten(moved, gradient), buffers | {"loss": loss})

    def _gates(self, net: Tensors, buffers: Tensors, theta: Tensor, slopes: Tensor, loss: Tensor) -> Tensors:
        """Return the LSTM's memory and both gates for parameters, gradients [coordinates] and the loss []."""
        p = self.config.p
        x = torch.cat([log_and_sign(slopes, p), log_and_sign(loss, p).expand(slopes.shape[0], 2)], -1)
        memory = lstm(net, "layer0", x, Memory(buffers["hidden"], buffers["cell"]))
        after = {"hidden": memory.hidden, "cell": memory.cell}
        for gate in GATES:
            reads = torch.cat([memory.hidden, theta.unsqueeze(-1), buffers[gate].unsqueeze(-1)], -1)
            after[gate] = torch.sigmoid(reads @ net[f"{gate}.weight"].T + net[f"{gate}.bias"]).squeeze(-1)
        return after
