r"""A small transformer for text and for series.

Vaswani et al., 2017, https://arxiv.org/abs/1706.03762, equation 1 and sections 3.2 to 3.5, with the norm before each
part (Xiong et al., 2020, https://arxiv.org/abs/2002.04745):

    h <- h + Attention(norm(h)),   h <- h + W2 gelu(W1 norm(h) + b1) + b2
    Attention = softmax(Q K^T / sqrt(width / heads)) V

A text's tokens are embedded, times sqrt(width); the steps of a series are projected. The features are the average of
the last states over the places that hold something. All is written in operations that have second and forward
derivatives and run under vmap: torch's fused attention on CPU has neither, and its layer norm is batched to a wrong
second derivative (torch 2.13). Cost: of order length^2 width + length width^2 for each layer and example.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Int
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import ARCHITECTURES, affine_parameters, linear_parameters
from metaloom.learners.networks.batch_norm import EPSILON, Normalization
from metaloom.learners.networks.sequence import SequenceNetwork
from metaloom.learners.networks.series.observed import series_channels, split_observed
from metaloom.learners.networks.tokens import embedded, token_count
from metaloom.learners.tensors import Tensors

LONGEST_WAVE = 10_000.0  # of the sinusoidal positions, section 3.5
TOKENS = "tokens.weight"  # the embedding of the tokens


@dataclass(frozen=True)
class TransformerConfig:
    """The size of the network.

    Attributes:
        width: Numbers of each place's state.
        layers: Blocks of attention and two linear layers.
        heads: Attentions side by side in a block; they divide ``width``.
        expansion: How many times as wide the layer within a block is.
        positions: ``learned`` for each place, or ``sinusoidal``.
        causal: A place attends to itself and to earlier ones alone, as a language model's does.
    """

    width: Annotated[int, Int(4, 1024, log=True)] = 64
    layers: Annotated[int, Int(1, 24)] = 2
    heads: Annotated[int, Int(1, 32)] = 4
    expansion: Annotated[int, Int(1, 8)] = 4
    positions: Literal["learned", "sinusoidal"] = "learned"
    causal: bool = False


@ARCHITECTURES.register("transformer")
class Transformer(SequenceNetwork):
    """Blocks ``block0``, ``block1`` ... between the embedding (or projection) and the last norm."""

    config: TransformerConfig

    def __init__(self, config: TransformerConfig, task: TaskShape) -> None:
        super().__init__(config, task)
        if config.width % config.heads:
            raise LearnerError(
                f"learner.architecture.heads: {config.heads} heads do not divide a width of {config.width}; give "
                f"{math.gcd(config.heads, config.width)}, or another width"
            )
        if len(task.inputs) > 2:
            raise LearnerError(
                "learner.architecture: transformer reads text [length] or series [channels, length], but this task's "
                f"examples have shape {task.inputs}; use conv4"
            )

    @property
    def causal(self) -> bool:
        return self.config.causal

    def layers(self) -> list[tuple[str, ...]]:
        """Return the embedding with the positions, then each block, the last one with the norm behind it."""
        blocks = [(f"block{index}",) for index in range(self.config.layers)]
        return [("tokens", "steps", "positions"), *blocks[:-1], (*blocks[-1], "last")]

    def largest_map(self, images: int) -> int | None:
        return images * self.length * self.config.expansion * self.config.width

    def parameters(self, generator: Generator) -> Tensors:
        width, theta = self.config.width, {}
        if self.reads_text:
            theta[TOKENS] = _drawn(token_count(self.task), width, generator)
        else:
            channels = series_channels(self.task, "transformer") if len(self.task.inputs) == 2 else 1
            theta |= linear_parameters("steps", channels, width, generator)
        if self.config.positions == "learned":
            theta["positions.weight"] = _drawn(self.length, width, generator)
        for index in range(self.config.layers):
            theta |= block_parameters(f"block{index}", width, self.config.expansion * width, generator)
        return theta | affine_parameters("last", width) | linear_parameters("head", width, self.task.outputs, generator)

    def tokens(self, theta: Tensors) -> Tensor:
        return theta[TOKENS]

    def states(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        hidden, allowed = self._entered(theta, x), self._allowed(x)
        for index in range(self.config.layers):
            hidden = block(theta, f"block{index}", hidden, allowed, self.config.heads)
        return layer_norm(theta, "last", hidden)

    def attention(self, theta: Tensors, x: Tensor) -> Tensor:
        """Return what each place of x [n, *inputs] attends to in the last block: [n, heads, length, length]."""
        hidden, allowed = self._entered(theta, x), self._allowed(x)
        for index in range(self.config.layers - 1):
            hidden = block(theta, f"block{index}", hidden, allowed, self.config.heads)
        name = f"block{self.config.layers - 1}"
        return attended(theta, name, layer_norm(theta, f"{name}.before", hidden), allowed, self.config.heads)[0]

    def _entered(self, theta: Tensors, x: Tensor) -> Tensor:
        """Return what enters the first block: [n, length, width]."""
        scale = math.sqrt(self.config.width)
        if self.reads_text:
            hidden = scale * embedded(theta[TOKENS], x)
        else:
            values, _ = split_observed(x, self.task)
            steps = values.transpose(1, 2) if values.ndim == 3 else values.unsqueeze(-1)
            hidden = F.linear(steps, theta["steps.weight"], theta["steps.bias"])
        if self.config.positions == "learned":
            return hidden + scale * theta["positions.weight"]
        return hidden + sinusoids(self.length, self.config.width).to(hidden)

    def _allowed(self, x: Tensor) -> Tensor:
        """Return which places each place may attend to: bool [n, 1, length, length]; itself at least."""
        allowed = self.observed(x)[:, None, None, :] | torch.eye(self.length, dtype=torch.bool, device=x.device)
        if self.config.causal:
            allowed = allowed & torch.ones(self.length, self.length, dtype=torch.bool, device=x.device).tril()
        return allowed


def _drawn(rows: int, width: int, generator: Generator) -> Tensor:
    """Draw an embedding [rows, width], whose rows are of length 1 on average."""
    return torch.randn(rows, width, generator=generator) / math.sqrt(width)


def block_parameters(name: str, width: int, inner: int, generator: Generator) -> Tensors:
    """Draw a block: its two norms, the attention's projections, and the two linear layers."""
    theta = affine_parameters(f"{name}.before", width)
    theta |= linear_parameters(f"{name}.attention", width, 3 * width, generator)
    theta |= linear_parameters(f"{name}.joined", width, width, generator)
    theta |= affine_parameters(f"{name}.between", width)
    theta |= linear_parameters(f"{name}.wide", width, inner, generator)
    return theta | linear_parameters(f"{name}.narrow", inner, width, generator)


def block(theta: Tensors, name: str, hidden: Tensor, allowed: Tensor, heads: int) -> Tensor:
    """Pass hidden states [n, length, width] through a block."""
    _, values = attended(theta, name, layer_norm(theta, f"{name}.before", hidden), allowed, heads)
    hidden = hidden + _linear(theta, f"{name}.joined", values)
    wide = F.gelu(_linear(theta, f"{name}.wide", layer_norm(theta, f"{name}.between", hidden)))
    return hidden + _linear(theta, f"{name}.narrow", wide)


def attended(theta: Tensors, name: str, hidden: Tensor, allowed: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Return the shares [n, heads, length, length] and the values that they weigh [n, length, width]."""
    count, length, width = hidden.shape
    projected = _linear(theta, f"{name}.attention", hidden).view(count, length, 3, heads, width // heads)
    query, key, value = projected.permute(2, 0, 3, 1, 4).unbind(0)  # [n, heads, length, width / heads] each
    scores = query @ key.transpose(-2, -1) / math.sqrt(width // heads)
    # finite, so that no gradient is NaN; half of the least number, so that a sum with it does not overflow
    shares = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min / 2).softmax(-1)
    return shares, (shares @ value).transpose(1, 2).reshape(count, length, width)


def layer_norm(theta: Tensors, name: str, hidden: Tensor) -> Tensor:
    """Scale each state to mean 0 and deviation 1, then by gamma and beta."""
    centred = hidden - hidden.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + EPSILON).rsqrt()
    return centred * scale * theta[f"{name}.weight"] + theta[f"{name}.bias"]


def sinusoids(length: int, width: int) -> Tensor:
    """Return the sinusoidal positions, float64 [length, width]: sines, then cosines, of falling frequency."""
    half = (width + 1) // 2
    rates = LONGEST_WAVE ** -(torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)[:, :width]


def _linear(theta: Tensors, name: str, x: Tensor) -> Tensor:
    return F.linear(x, theta[f"{name}.weight"], theta[f"{name}.bias"])
