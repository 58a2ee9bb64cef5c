r"""EASY: a network pre-trained on all base classes, with rotations and manifold mixup; then augmented shots.

Bendou et al., 2022, https://arxiv.org/abs/2201.09699, section 3.1 (its backbone training, Y), after S2M2 (Mangla et
al., 2020, https://arxiv.org/abs/1907.12087). A batch is the support set and the queries of an episode, y its labels
among all meta-train classes:

    L_rotation = (1 - w) CE(W f(x_r), y) + w CE(V f(x_r), r)     a quarter of the batch turned by r = 0, 1, 2, 3
    L_mixup    = l CE(W f~(x), y) + (1 - l) CE(W f~(x), y_p)     f~ has l h + (1 - l) h_p for one of its layers h
    L          = L_rotation + L_mixup,    l ~ Beta(a, a),    p a permutation of the batch

No inner steps: a new task is solved by ``augmented_shots``. The paper adds L_mixup in the last epochs alone; a trial
from a bundle of one without it (``initialization: fine_tuned``) does the same. Cost: two passes for each batch.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Int, Learned, Real
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import Network, linear_parameters
from metaloom.learners.networks.tokens import token_count
from metaloom.learners.solvers.amortized import Embedding, Judged
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.metric.augmented_shots import AugmentedShots, AugmentedShotsConfig, centre_of
from metaloom.learners.solvers.metric.comparisons import kept
from metaloom.learners.tensors import Tensors

TURNS = 4
CLASSES, ROTATIONS = "classes", "rotations"  # the heads
SHARE, PLACE, ORDER = "share", "place", "order"  # the random numbers of a batch's mixing


@dataclass(frozen=True)
class EasyConfig(AugmentedShotsConfig):
    """How the network is pre-trained, and the parts of the head.

    Attributes:
        rotations: Whether a second head learns by how many quarter turns an image was rotated.
        rotation_weight: w, the weight of that head's loss.
        mixup: a, the parameter of the Beta distribution of a mixing's share; 0 mixes nothing.
    """

    rotations: bool = True
    rotation_weight: Annotated[float, Real(0.0, 1.0, per=())] = 0.5
    mixup: Annotated[int, Int(0, 8)] = 2


@SOLVERS.register("easy")
class Easy(AugmentedShots):
    """Pre-training on all meta-train classes together, and augmented shots for a new task."""

    config: EasyConfig
    learns = True

    def __init__(self, config: EasyConfig, task: TaskShape) -> None:
        super().__init__(config, task)
        if isinstance(config.sharpness, Learned):
            raise LearnerError(
                "learner.prediction.sharpness: pre-training does not read it; give a number, or learn it with "
                "augmented_shots on the bundle"
            )
        if token_count(task):
            raise LearnerError(
                "learner.prediction: easy mixes and turns examples, and this task's are the token numbers of texts; "
                "use prototypes, or language_model"
            )
        if config.rotations and (len(task.inputs) != 3 or task.inputs[1] != task.inputs[2]):
            raise LearnerError(
                f"learner.prediction.rotations: only square images can be turned, and this task's examples have shape "
                f"{task.inputs}; use false"
            )

    @property
    def random(self) -> bool:
        return self.config.mixup > 0

    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        """Draw the heads over all meta-train classes and over the rotations."""
        if not self.task.classes:
            raise LearnerError("learner.prediction: easy needs a few-shot task source with known classes")
        width = torch.Size(features).numel()
        heads = linear_parameters(CLASSES, width, self.task.classes, generator)
        return heads | (linear_parameters(ROTATIONS, width, TURNS, generator) if self.config.rotations else {})

    def draw_loss(self, episode: Episode, generator: Generator) -> Tensors:
        """Draw the share, the hidden layer (as a fraction of all) and the order of the examples that are mixed in."""
        count, a = len(kept(episode.support).y) + len(episode.query_y), self.config.mixup
        like = episode.query_x
        uniform = torch.rand(2 * a - 1, generator=generator)  # its a-th smallest is distributed as Beta(a, a)
        drawn = {SHARE: uniform.sort().values[a - 1], PLACE: torch.rand((), generator=generator)}
        placed = {name: value.to(like) for name, value in drawn.items()}
        return placed | {ORDER: torch.randperm(count, generator=generator).to(like.device)}

    def loss(self, phi: Tensors, embed: Embedding, episode: Episode) -> Judged:
        """Return the pre-training loss of an episode's examples, and the accuracy among all meta-train classes."""
        if episode.class_ids is None:
            raise LearnerError("learner.prediction: easy needs episodes that name their classes")
        given = kept(episode.support)
        x = torch.cat([given.x, episode.query_x])
        y = episode.class_ids[torch.cat([given.y, episode.query_y])]
        mixed = self._mixed_loss(phi, embed, x, y, episode.noise) if self.random else x.new_zeros(())
        turns = quarters(len(x), x.device) if self.config.rotations else torch.zeros_like(y)
        features = embed(turned(x, turns) if self.config.rotations else x)  # last: its statistics are kept
        if self.config.centre:
            upright = features.detach()[turns == 0]
            centre_of(embed.own_norm(lambda alone: centre_of(alone, upright)), upright)
        scores = head(phi, CLASSES, features)
        plain, accuracy = F.cross_entropy(scores, y), (scores.argmax(-1) == y).to(x.dtype).mean()
        if self.config.rotations:
            w = self.config.rotation_weight
            plain = (1 - w) * plain + w * F.cross_entropy(head(phi, ROTATIONS, features), turns)
        return Judged(plain + mixed, accuracy)

    def _mixed_loss(self, phi: Tensors, embed: Embedding, x: Tensor, y: Tensor, noise: Tensors) -> Tensor:
        """Return the loss of a batch of which one hidden layer, or the examples themselves, are mixed in pairs."""
        share, order = noise[SHARE], noise[ORDER]
        places = max(embed.network.places, 1) if embed.network is not None else 1  # the last one is the features
        place = int(noise[PLACE] * places)

        def between(at: int, hidden: Tensor) -> Tensor:
            return torch.lerp(hidden[order], hidden, share) if at == place else hidden

        scores = head(phi, CLASSES, embed(between(0, x), between=between))
        return share * F.cross_entropy(scores, y) + (1 - share) * F.cross_entropy(scores, y[order])


def head(phi: Tensors, name: str, features: Tensor) -> Tensor:
    """Apply a head to features [n, d]."""
    return F.linear(features, phi[f"{name}.weight"], phi[f"{name}.bias"])


def quarters(count: int, device: torch.device) -> Tensor:
    """Return the turns of a batch's examples, a quarter each: int64 [count].

    Every fourth has the same ones, so that the classes, which stand side by side, are turned alike.
    """
    return torch.arange(count, device=device) % TURNS


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """Turn each square image [n, channels, side, side] by its quarter turns [n]."""
    each = torch.stack([images.rot90(turn, (2, 3)) for turn in range(TURNS)])
    return each[turns, torch.arange(len(images), device=images.device)]
