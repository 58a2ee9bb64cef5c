r"""One learned weight for every training example, by its number: data cleaning.

Maclaurin, Duvenaud and Adams pose the bilevel problem; Franceschi et al., 2017, https://arxiv.org/abs/1703.01785,
section 5.1 (data hyper-cleaning), learn a weight per example of a noisy training set from a clean one:

    w_i = squash(lambda_i)    with lambda one number per training example

An example that a batch does not hold gets a hypergradient of zero from it, so this needs many more outer
steps, or a larger outer rate, than a net of the loss; unlike that net it tells apart two examples of equal
loss. An example without a number (a new task's) counts as all do at the start.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.knowledge.sample_weights import WEIGHTINGS, Examples, Weighting
from metaloom.learners.tensors import Tensors


@dataclass(frozen=True)
class PerSampleConfig:
    """What bounds the weights, and whether a batch's are divided by their sum.

    Attributes:
        squash: ``sigmoid`` keeps a weight in (0, 1), from 1/2; ``softplus`` above 0, from log 2.
        normalize: Divide a batch's weights by their sum, so that they cannot all shrink together.
    """

    squash: Literal["sigmoid", "softplus"] = "sigmoid"
    normalize: bool = True


@WEIGHTINGS.register("per_sample")
class PerSample(Weighting):
    """lambda has one entry per training example."""

    Config = PerSampleConfig
    config: PerSampleConfig
    learns = True
    numbered = True

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        """Start every example alike."""
        return {"sample": torch.zeros(sum(self.task.counts))}

    def sample_weights(self, phi: Tensors) -> Tensor:
        """Return the weight of every training example, [examples]."""
        return torch.sigmoid(phi["sample"]) if self.config.squash == "sigmoid" else F.softplus(phi["sample"])

    def weights(self, phi: Tensors, examples: Examples) -> Tensor:
        if examples.sample_ids is None:
            return torch.ones_like(examples.losses)
        return self.sample_weights(phi)[examples.sample_ids]

    @property
    def normalizes(self) -> bool:
        return self.config.normalize
