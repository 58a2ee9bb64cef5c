r"""Supervised pre-training: one head over all training classes, whose examples may count by their class.

Ngiam, Peng, Vasudevan, Kornblith, Le and Pang, 2018, https://arxiv.org/abs/1811.07056, section 3.2. A class that is
frequent among the examples of the target counts more:

    L    = mean of w(y)^power CE(W f(x) + b, y)
    w(y) = P_target(y) / P_source(y)

P_target(y) is the mean probability that a classifier of the source gives class y on unlabelled examples of the target
(``target_weights``). The weights are scaled to a mean of 1 over the classes, so that the rate means the same whatever
their spread. ``power: 0`` is the control, in which all classes count alike; weights of 0 leave classes out.
Cost: one pass forward and back.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Bounds, Real
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import Network, linear_parameters
from metaloom.learners.solvers.amortized import Embedding, Judged
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.pretraining.base import PretrainingConfig, PretrainingSolver, all_examples
from metaloom.learners.tensors import Tensors

CLASSES = "classes"  # the head


@dataclass(frozen=True)
class SupervisedConfig(PretrainingConfig):
    """How much each class counts.

    Attributes:
        weights: w of each training class, in the order of their numbers; none weighs all alike.
        power: The exponent of the weights: 1 is the paper's, 0 weighs all alike.
        label_smoothing: The share of a target that is spread over all classes.
    """

    weights: tuple[Annotated[float, Bounds(at_least=0)], ...] = ()
    power: Annotated[float, Real(0.0, 2.0, per=()), Bounds(at_least=0)] = 1.0
    label_smoothing: Annotated[float, Real(0.0, 0.3, per=()), Bounds(at_least=0, below=1)] = 0.0


@SOLVERS.register("supervised")
class Supervised(PretrainingSolver):
    """Trains the body and a head over all training classes; the head is dropped for a task."""

    config: SupervisedConfig
    takes_features = True

    def __init__(self, config: SupervisedConfig, task: TaskShape) -> None:
        super().__init__(config, task)
        self.classes = task.outputs if task.single_task else task.classes
        given = config.weights
        if given and len(given) != self.classes:
            raise LearnerError(
                f"learner.prediction.weights: got {len(given)} for {self.classes} training classes; give one for each"
            )
        if given and not any(given):
            raise LearnerError("learner.prediction.weights: all are 0, so that no class counts; give one above 0")

    @property
    def random(self) -> bool:
        return False

    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        """Draw the head over all training classes."""
        if not self.classes:
            raise LearnerError("learner.prediction: supervised needs a task source with known classes")
        return linear_parameters(CLASSES, torch.Size(features).numel(), self.classes, generator)

    def objective(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensor:
        return self.loss(phi, embed, episode).loss

    def loss(self, phi: Tensors, embed: Embedding, episode: Episode) -> Judged:
        """Return the weighted loss of all examples, and the accuracy among all training classes."""
        scores, y = self.scores(phi, embed(all_examples(episode))), self.numbers(episode)
        losses = F.cross_entropy(scores, y, reduction="none", label_smoothing=self.config.label_smoothing)
        return Judged((self.class_weights(scores)[y] * losses).mean(), (scores.argmax(-1) == y).to(scores.dtype).mean())

    def scores(self, phi: Tensors, features: Tensor) -> Tensor:
        """Return the logits of features [n, d] among all training classes: [n, classes]."""
        return F.linear(features, phi[f"{CLASSES}.weight"], phi[f"{CLASSES}.bias"])

    def numbers(self, episode: Episode) -> Tensor:
        """Return the classes of an episode's examples among all training classes: int64 [n]."""
        y = torch.cat([episode.support.kept().y, episode.query_y])
        if self.task.single_task:
            return y
        if episode.class_ids is None:
            raise LearnerError("learner.prediction: supervised needs episodes that name their classes")
        return episode.class_ids[y]

    def class_weights(self, like: Tensor) -> Tensor:
        """Return how much each class counts, with a mean of 1: [classes]."""
        given = self.config.weights or (1.0,) * self.classes
        weights = torch.tensor(given, dtype=torch.float64) ** self.config.power
        return (weights / weights.mean()).to(like)


def target_weights(probabilities: Tensor, source: Tensor) -> Tensor:
    """Return w(y) = P_target(y) / P_source(y), [classes]; 0 for a class that the source has not.

    Args:
        probabilities: What a classifier of the source gives unlabelled examples of the target: [n, classes].
        source: The frequency of each class in the source, in any unit: [classes].
    """
    target, shares = probabilities.mean(0), source / source.sum()
    return torch.where(shares > 0, target / shares.clamp_min(1e-12), torch.zeros_like(target))
