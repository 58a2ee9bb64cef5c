r"""Masked autoencoders: reconstruct what is hidden of an example from what is left of it.

He, Chen, Xie, Li, Dollar and Girshick, 2021, https://arxiv.org/abs/2111.06377, section 3. An image is cut into patches
of p x p pixels, a series into runs of p steps, a table's row into runs of p columns; of each example a share of the
patches, drawn without replacement, is hidden:

    L = mean of (r_i - x_i)^2 over the hidden numbers alone

Unlike the paper's, the body sees the hidden patches too, filled with zeros or with a value that is learned for each
channel or column (as the tokens of Devlin et al., 2019, are), so that any architecture can be the body. Of series whose
last channel says what was observed, hidden steps are steps that were not. Cost: one pass forward and back, and one
without a gradient; the paper's saving by leaving hidden patches out needs a transformer.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Generator, Tensor

from metaloom.learners.domains import Bounds, Int, Real
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import Network
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.pretraining.autoencoder import Autoencoder, Corrupted
from metaloom.learners.solvers.pretraining.decoders import DecoderConfig
from metaloom.learners.tensors import Tensors

ORDER, FILL = "order", "fill"  # the random numbers that order the patches; the learned values of hidden numbers
PATCH = 4  # by default, of images and series


@dataclass(frozen=True)
class MaskedAutoencoderConfig(DecoderConfig):
    """What is hidden, and the decoder.

    Attributes:
        masked: The share of an example's patches that is hidden; at least one is, and one is not.
        patch: Side of a patch, in pixels, steps or columns; None is 4 pixels or steps, and one column.
        fill: What stands in a hidden place: zeros, or a learned value of the channel or column.
    """

    masked: Annotated[float, Real(0.1, 0.9, per=()), Bounds(above=0, below=1)] = 0.75
    patch: Annotated[int | None, Int(1, 16), Bounds(at_least=1)] = None
    fill: Literal["zero", "learned"] = "learned"


@SOLVERS.register("masked_autoencoder")
class MaskedAutoencoder(Autoencoder):
    """Reconstructs hidden patches."""

    config: MaskedAutoencoderConfig

    def __init__(self, config: MaskedAutoencoderConfig, task: TaskShape) -> None:
        super().__init__(config, task)
        self.sides = task.inputs[-1:] if len(task.inputs) < 3 else task.inputs[-2:]
        self.patch = config.patch or (1 if len(task.inputs) == 1 else PATCH)
        self.grid = [math.ceil(side / self.patch) for side in self.sides]
        if math.prod(self.grid) < 2:
            size = "x".join(map(str, self.sides))
            raise LearnerError(
                f"learner.prediction.patch: a patch of {self.patch} leaves one patch of an example of {size}, and one "
                "must stay to be seen; use a smaller one"
            )

    @property
    def fills(self) -> bool:
        """Whether what stands in a hidden place is learned."""
        return self.config.fill == "learned" and not self.task.observed

    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        """Draw the decoder, and learned values of hidden numbers: zeros of an example's shape without its sides."""
        drawn = super().parameters(network, features, generator)
        inputs = self.task.inputs
        shape = inputs if len(inputs) == 1 else (inputs[0], *[1] * (len(inputs) - 1))
        return drawn | ({FILL: torch.zeros(shape)} if self.fills else {})

    def corruption(self, x: Tensor, generator: Generator) -> Tensors:
        return {ORDER: torch.rand(len(x), math.prod(self.grid), generator=generator).to(x)}

    def corrupted(self, phi: Tensors, x: Tensor, noise: Tensors) -> Corrupted:
        hidden = self.hidden(noise[ORDER]).reshape(len(x), *[1] * (x.ndim - 1 - len(self.sides)), *self.sides)
        hidden = hidden.expand_as(x)
        fill = phi[FILL] if self.fills else torch.zeros_like(x)
        return Corrupted(torch.where(hidden, fill, x), hidden.to(x.dtype), hidden)

    def hidden(self, order: Tensor) -> Tensor:
        """Return which places are hidden, bool [n, *sides]: patches of the smallest numbers [n, patches]."""
        patches = order.shape[1]
        count = min(max(round(self.config.masked * patches), 1), patches - 1)
        ranks = order.argsort(1).argsort(1)
        cells = (ranks < count).reshape(len(order), *self.grid)
        for axis, side in enumerate(self.sides, start=1):
            cells = cells.repeat_interleave(self.patch, axis).narrow(axis, 0, side)
        return cells
