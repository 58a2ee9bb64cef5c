r"""An optimizer that is learned: a recurrent network reads each coordinate's gradient and says how it moves.

Andrychowicz et al., 2016, https://arxiv.org/abs/1606.04474, equations 2 and 3, section 2.1 and appendix A:

    theta_t+1 = theta_t + rate * g_t,    [g_t, h_t+1] = m(grad f(theta_t), h_t, phi)
    L(phi)    = sum_t f(theta_t)         (inner.trajectory_loss)

m is one LSTM of two layers, shared by all coordinates, each with a hidden state of its own, so that it serves
networks of any size. A gradient comes in as (log|g| / p, sign g) where |g| >= e^-p, else as (-1, e^p g).
The paper takes grad f as a constant in the outer gradient, and so does the method (``second_order: false``): a
biased hypergradient, and a stable one. Differentiated, it is exact. Learned over short trajectories it may
diverge on longer ones.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor

from metaloom.learners.domains import Int, Learned, Real
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.update_rules.base import GRANULARITIES, NETWORK, UPDATE_RULES, UpdateConfig, UpdateRule
from metaloom.learners.knowledge.update_rules.lstm import Memory, log_and_sign, lstm, lstm_parameters
from metaloom.learners.tensors import InnerState, Tensors, part, under


@dataclass(frozen=True)
class LearnedOptimizerConfig(UpdateConfig):
    """The network's size, and what scales its output.

    Attributes:
        rate: Times the network's output.
        hidden: Width of each LSTM layer.
        layers: Number of LSTM layers.
        p: The range of the preprocessing: gradients below e^-p count as small.
        second_order: Differentiate the inner gradient too; the paper holds it constant.
    """

    rate: Annotated[float | Learned, Real(1e-3, 1.0, log=True, per=GRANULARITIES)] = 0.1
    hidden: Annotated[int, Int(1, 256, log=True)] = 20
    layers: Annotated[int, Int(1, 4)] = 2
    p: Annotated[float, Real(1.0, 20.0, per=())] = 10.0
    second_order: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("hidden", "layers"):
            if getattr(self, name) < 1:
                raise LearnerError(f"learner.update.{name} must be at least 1, got {getattr(self, name)}")
        if not self.p > 0:
            raise LearnerError(f"learner.update.p must be above 0, got {self.p}")


@UPDATE_RULES.register("learned_optimizer")
class LearnedOptimizer(UpdateRule):
    """A coordinatewise LSTM; its hidden and cell states are the buffers, [layers, coordinates, hidden]."""

    Config = LearnedOptimizerConfig
    config: LearnedOptimizerConfig
    learns = True

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        hidden, bound = self.config.hidden, 1 / math.sqrt(self.config.hidden)
        net: Tensors = {}
        for layer in range(self.config.layers):
            net |= lstm_parameters(f"layer{layer}", hidden if layer else 2, hidden, generator)
        net["output.weight"] = torch.empty(1, hidden).uniform_(-bound, bound, generator=generator)
        net["output.bias"] = torch.zeros(1)
        return under(NETWORK, net) | super().init(theta, generator)

    @property
    def approximation(self) -> str:
        return "" if self.config.second_order else "the inner gradient counts as a constant (second_order: false)"

    def begin(self, theta: Tensors) -> Tensors:
        adapted = list(self.adapted(theta).values())
        shape = (self.config.layers, sum(value.numel() for value in adapted), self.config.hidden)
        return {name: adapted[0].new_zeros(shape) for name in ("hidden", "cell")}

    def step(self, phi: Tensors, state: InnerState, gradient: Tensors, index: int) -> InnerState:
        slopes = torch.cat([slope.reshape(-1) for slope in gradient.values()])
        before = [Memory(*pair) for pair in zip(state.buffers["hidden"], state.buffers["cell"], strict=True)]
        moves, after = self.respond(phi, slopes if self.config.second_order else slopes.detach(), before)
        theta = dict(state.theta)
        pieces = torch.split(moves, [slope.numel() for slope in gradient.values()])
        for (name, slope), piece in zip(gradient.items(), pieces, strict=True):
            theta[name] = theta[name] + self.rate(phi, name, index) * piece.view_as(slope)
        hidden, cell = (torch.stack(values) for values in zip(*after, strict=True))
        return InnerState(theta, {"hidden": hidden, "cell": cell})

    def respond(self, phi: Tensors, slopes: Tensor, before: list[Memory]) -> tuple[Tensor, list[Memory]]:
        """Return each coordinate's move before the rate, [n], and the layers' memory, for gradients ``slopes`` [n]."""
        net, after = part(phi, NETWORK), []
        x = log_and_sign(slopes, self.config.p)
        for layer, memory in enumerate(before):
            after.append(lstm(net, f"layer{layer}", x, memory))
            x = after[-1].hidden
        return (x @ net["output.weight"].T + net["output.bias"]).squeeze(-1), after
