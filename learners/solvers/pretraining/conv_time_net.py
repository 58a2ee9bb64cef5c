r"""ConvTimeNet: one body for the series of many data sets, trained with one softmax head for each of them.

Kashiparekh, Narwariya, Malhotra, Vig and Shroff, 2019, https://arxiv.org/abs/1904.12546, section III:

    L = - mean over the series of log softmax(W_d f(x) + b_d)_y        d: the data set of the episode, y in its classes

The heads are dropped when the body is handed on, and the body is fine-tuned with a new head. Which data set an episode
is of follows from its classes (``TaskShape.groups``); where there is one data set there is one head. Any network's body
serves; the paper's is a convolution with filters of 4, 8, 16, 32 and 64 steps, 33 of each, in residual blocks. Cost:
one pass forward and back, and one pass without a gradient.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.episode import Episode
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import Network, linear_parameters
from metaloom.learners.solvers.amortized import Embedding
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.pretraining.base import PretrainingConfig, all_examples
from metaloom.learners.solvers.pretraining.series import SeriesPretraining
from metaloom.learners.tensors import Tensors

HEADS = "heads"


@dataclass(frozen=True)
class ConvTimeNetConfig(PretrainingConfig):
    """How a task is solved on the features; the heads have nothing to set."""


@SOLVERS.register("conv_time_net")
class ConvTimeNet(SeriesPretraining):
    """Classifies series among the classes of their data set."""

    config: ConvTimeNetConfig

    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        """Draw the heads of all data sets, one after another."""
        if not self.task.classes:
            raise LearnerError("learner.prediction: conv_time_net needs a task source with known classes")
        return linear_parameters(HEADS, math.prod(features), self.task.classes, generator)

    def objective(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensor:
        if episode.class_ids is None:
            raise LearnerError("learner.prediction: conv_time_net needs episodes that name their classes")
        first, end = self.task.group_of(episode.class_ids)
        labels = episode.class_ids[torch.cat([episode.support.kept().y, episode.query_y])] - first
        weight, bias = phi[f"{HEADS}.weight"][first:end], phi[f"{HEADS}.bias"][first:end]
        return F.cross_entropy(F.linear(embed(all_examples(episode)), weight, bias), labels)
