r"""The meta-learner LSTM: gradient descent read as the cell of an LSTM, whose gates are learned.

Ravi and Larochelle, 2017, https://openreview.net/forum?id=rJY0-Kcll, section 3.1 and equations 2 to 4:

    theta_t = f_t * theta_t-1 - i_t * grad_t
    i_t = sigmoid(W_I [h_t, theta_t-1, i_t-1] + b_I),    f_t = sigmoid(W_F [h_t, theta_t-1, f_t-1] + b_F)

h_t is the hidden state of one LSTM, shared by all coordinates, that reads their gradient and the loss, each as
(log|.| / p, sign). i_t is a learning rate and f_t a decay, for each coordinate and step. They start at ``rate``
and ``keep`` wherever they look (small W): gradient descent with a little decay. The start theta_0 is the
initialization's to learn. The paper takes gradient and loss as constants in the outer gradient
(``second_order: false``); here they are differentiated, so that the hypergradient is exact. Costs one more
forward pass a step, for the loss.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor

from metaloom.learners.domains import Int, Learned, Real
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.update_rules.base import NETWORK, UPDATE_RULES, UpdateConfig, UpdateRule
from metaloom.learners.knowledge.update_rules.lstm import Memory, log_and_sign, lstm, lstm_parameters
from metaloom.learners.tensors import InnerState, Tensors, part, under

GATES = ("keep", "rate")


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

    rate: Annotated[float | Learned, Real(1e-4, 0.5, log=True, per=())] = 0.01
    keep: Annotated[float, Real(0.9, 0.9999, per=())] = 0.9975
    gate_spread: Annotated[float, Real(0.0, 0.5, per=())] = 0.01
    hidden: Annotated[int, Int(1, 256, log=True)] = 20
    p: Annotated[float, Real(1.0, 20.0, per=())] = 10.0
    second_order: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in GATES:
            start = getattr(self, name)
            if not isinstance(start, float | int) or not 0 < start < 1:
                raise LearnerError(f"learner.update.{name} must be a number above 0 and below 1, got {start}")
        if self.hidden < 1:
            raise LearnerError(f"learner.update.hidden must be at least 1, got {self.hidden}")
        if self.gate_spread < 0:
            raise LearnerError(f"learner.update.gate_spread must be at least 0, got {self.gate_spread}")
        if not self.p > 0:
            raise LearnerError(f"learner.update.p must be above 0, got {self.p}")


@UPDATE_RULES.register("meta_lstm")
class MetaLSTM(UpdateRule):
    """Buffers: the LSTM's hidden and cell [coordinates, hidden], both gates [coordinates], the loss []."""

    Config = MetaLSTMConfig
    config: MetaLSTMConfig
    learns = True
    reads_loss = True

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        hidden, spread = self.config.hidden, self.config.gate_spread
        net = lstm_parameters("layer0", 4, hidden, generator)
        for gate in GATES:
            start = getattr(self.config, gate)
            net[f"{gate}.weight"] = torch.empty(1, hidden + 2).uniform_(-spread, spread, generator=generator)
            net[f"{gate}.bias"] = torch.full((1,), math.log(start / (1 - start)))
        return under(NETWORK, net)

    @property
    def approximation(self) -> str:
        return "" if self.config.second_order else "the inner gradient counts as a constant (second_order: false)"

    def begin(self, theta: Tensors) -> Tensors:
        adapted = list(self.adapted(theta).values())
        count = sum(value.numel() for value in adapted)
        buffers = {name: adapted[0].new_zeros(count, self.config.hidden) for name in ("hidden", "cell")}
        return buffers | {gate: adapted[0].new_zeros(count) for gate in GATES} | {"loss": adapted[0].new_zeros(())}

    def step(self, phi: Tensors, state: InnerState, gradient: Tensors, index: int) -> InnerState:
        slopes = torch.cat([slope.reshape(-1) for slope in gradient.values()])
        loss = state.buffers["loss"]
        seen = (slopes, loss) if self.config.second_order else (slopes.detach(), loss.detach())
        before = torch.cat([state.theta[name].reshape(-1) for name in gradient])
        buffers = self._gates(part(phi, NETWORK), state.buffers, before, *seen)
        moved = buffers["keep"] * before - buffers["rate"] * seen[0]
        theta = dict(state.theta)
        pieces = torch.split(moved, [slope.numel() for slope in gradient.values()])
        for (name, slope), piece in zip(gradient.items(), pieces, strict=True):
            theta[name] = piece.view_as(slope)
        return InnerState(theta, buffers | {"loss": loss})

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
