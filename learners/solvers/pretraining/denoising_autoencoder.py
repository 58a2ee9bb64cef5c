r"""Denoising autoencoders: reconstruct an example from a corrupted copy of it.

Vincent, Larochelle, Bengio and Manzagol, 2008, Extracting and composing robust features with denoising autoencoders,
section 2.3; Vincent et al., 2010, https://jmlr.org/papers/v11/vincent10a.html, sections 3.3 and 4.2:

    gaussian:         x~ = x + s e,  e ~ N(0, 1)
    masking:          x~_i = 0 with probability v
    salt_and_pepper:  x~_i = the smallest or the largest value of the batch, with probability v / 2 each
    L                 = mean of w_i (r_i - x_i)^2,   w_i = 1 where x_i was corrupted, 1 - emphasis elsewhere

The paper stacks autoencoders layer by layer. Here the whole body is trained at once, as later work does; depth is the
architecture's. Cost: one pass forward and back, and one without a gradient.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Generator, Tensor

from metaloom.learners.domains import Bounds, Real
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.pretraining.autoencoder import Autoencoder, Corrupted
from metaloom.learners.solvers.pretraining.decoders import DecoderConfig
from metaloom.learners.tensors import Tensors

DRAWN = "drawn"  # the random numbers of a corruption


@dataclass(frozen=True)
class DenoisingAutoencoderConfig(DecoderConfig):
    """How examples are corrupted, and the decoder.

    Attributes:
        corruption: Gaussian noise is added, numbers are set to 0, or to the smallest or largest one of the batch.
        noise: The deviation s of Gaussian noise, in units of the inputs; else the share v of the numbers, at most 1.
        emphasis: How much less the numbers that were not corrupted count: 0 is as much, 1 not at all. Gaussian noise
            corrupts all.
    """

    corruption: Literal["gaussian", "masking", "salt_and_pepper"] = "gaussian"
    noise: Annotated[float, Real(0.05, 0.9, per=()), Bounds(at_least=0)] = 0.3
    emphasis: Annotated[float, Real(0.0, 1.0, per=()), Bounds(at_least=0, at_most=1)] = 0.0


@SOLVERS.register("denoising_autoencoder")
class DenoisingAutoencoder(Autoencoder):
    """Reconstructs examples from noisy ones."""

    config: DenoisingAutoencoderConfig

    def corruption(self, x: Tensor, generator: Generator) -> Tensors:
        draw = torch.randn if self.config.corruption == "gaussian" else torch.rand
        return {DRAWN: draw(x.shape, generator=generator).to(x)}

    def corrupted(self, phi: Tensors, x: Tensor, noise: Tensors) -> Corrupted:
        drawn, amount = noise[DRAWN], self.config.noise
        if self.config.corruption == "gaussian":
            return Corrupted(x + amount * drawn, torch.ones_like(x))
        changed = drawn < amount
        weights = torch.where(changed, torch.ones_like(x), 1 - self.config.emphasis)
        if self.config.corruption == "masking":
            return Corrupted(torch.where(changed, torch.zeros_like(x), x), weights)
        extreme = torch.where(drawn < amount / 2, x.amin(), x.amax())
        return Corrupted(torch.where(changed, extreme, x), weights)
