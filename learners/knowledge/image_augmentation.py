r"""Augmentation of images: a given policy, RandAugment, or a learned policy.

* ``policy``: sub-policies as in AutoAugment (Cubuk et al., 2019, https://arxiv.org/abs/1805.09501).
* ``rand_augment``: Cubuk et al., 2020, https://arxiv.org/abs/1909.13719: N operations out of K, each uniformly, all at
  one magnitude.
* ``dada``: a learned policy, in ``augmentation_policies.py`` as ``policy`` is.

The random numbers of all images and steps are drawn before the inner loop, and the inner loop's gradient is
differentiated through the varied images. ``straight_through`` applies the most likely pair, as a whole or not at all,
and differentiates the choices c and b as if they were soft: what is trained is what is exported, and the hypergradient
is biased (its derivative disagrees with central differences by definition). ``soft`` mixes images in proportion: the
hypergradient is as exact as the operations' own derivatives.

Cost: every image goes through all K operations for each one that is applied, because the choice depends on data.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor

from metaloom.learners.domains import Bounds, Int, Learned, Real
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.augmentation import AUGMENTATIONS, Augmentation, Policy, SubPolicy, Use
from metaloom.learners.knowledge.image_operations import OPERATIONS, STANDARD, Chance
from metaloom.learners.networks.base import image_shape
from metaloom.learners.tensors import Tensors, one_hot

RELAXATIONS = ("straight_through", "soft")
UNIT = Real(0.0, 1.0, bounded=True)


WITHIN = Bounds(at_least=0, at_most=1)


def check_items(field: str, items: Sequence[str], read: Callable[[str], object]) -> None:
    """Read each item of a list; its LearnerError is raised with the item's place in front."""
    for index, item in enumerate(items):
        try:
            read(item)
        except LearnerError as error:
            raise LearnerError(f"learner.augmentation.{field}[{index}]: {error}") from None


def uniform(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Draw u from (0, 1), so that log u and log(1 - u) are finite."""
    tiny = torch.finfo(torch.float32).eps
    return torch.rand(shape, generator=generator).clamp(tiny, 1 - tiny)


def gate(probability: Tensor, logistic: Tensor, temperature: float, relaxation: str) -> Tensor:
    """Draw whether an operation is applied, as a number in [0, 1], by its probability and logistic noise.

    The shapes broadcast. The relaxation is ``none`` for a probability that is not learned.
    """
    score = torch.logit(probability) + logistic
    hard = (score > 0).to(logistic.dtype)
    if relaxation == "none":
        return hard
    soft = torch.sigmoid(score / temperature)
    return soft if relaxation == "soft" else hard + soft - soft.detach()


def choice(logits: Tensor, gumbel: Tensor, temperature: float, relaxation: str) -> Tensor:
    """Draw one of several, as weights that sum to 1: [n, options] from logits [options] and noise [n, options]."""
    score = torch.log_softmax(logits, -1) + gumbel
    soft = torch.softmax(score / temperature, -1)
    if relaxation == "soft":
        return soft
    hard = one_hot(score.argmax(-1), logits.shape[-1], soft)
    return hard + soft - soft.detach()


def vary(x: Tensor, names: Sequence[str], weights: Tensor, magnitudes: Tensor, chance: Chance) -> Tensor:
    """Apply a mixture of K operations: x + sum_k w_k (op_k(x, m_k) - x), with the same chance for each.

    x is [n, channels, height, width], ``weights`` and ``magnitudes`` are [n, K].
    """
    total = x
    for index, name in enumerate(names):
        changed = OPERATIONS[name].function(x, magnitudes[:, index], chance)
        total = total + weights[:, index].reshape(-1, 1, 1, 1) * (changed - x)
    return total


class ImageAugmentation(Augmentation):
    """What the kinds share: images, and the random numbers of their operations."""

    stages: int  # how many operations may follow one another
    random = True
    approximation = "hard choices, and operations that are steps, count by the derivative of a smooth approximation"

    @abstractmethod
    def varied(self, phi: Tensors, x: Tensor, noise: Tensors) -> Tensor:
        """Return the varied images, [n, channels, height, width]."""

    def check(self, task: TaskShape) -> None:
        """Refuse examples that are not images in [0, 1]; raises LearnerError."""
        if task.mean:
            raise LearnerError(
                "learner.augmentation: images in [0, 1] are varied, and this task's examples are a table's rows, "
                "standardized; use kind: none"
            )
        if image_shape(task) is None or not task.task_kind.has_classes:
            raise LearnerError(
                "learner.augmentation: images [channels, height, width] or flattened square ones are varied, but this "
                f"{task.kind} task's examples have shape {task.inputs}; use kind: none"
            )

    def transform(self, phi: Tensors, x: Tensor, noise: Tensors) -> Tensor:
        side = math.isqrt(x.shape[-1])
        images = x if x.ndim == 4 else x.reshape(x.shape[0], 1, side, side)
        return self.varied(phi, images, noise).reshape(x.shape)

    def draw_noise(self, examples: Tensor, steps: int, generator: Generator, *, training: bool) -> Tensors:
        n = examples.shape[0]
        shape = (steps + 1, n, self.stages)
        share = uniform(shape, generator)
        return {
            "sign": 2.0 * torch.randint(2, shape, generator=generator) - 1,
            "place": torch.rand(*shape, 2, generator=generator),
            "partner": torch.randint(n, shape, generator=generator),
            "apply": share.log() - (1 - share).log(),
        }

    def chance(self, noise: Tensors, stage: int) -> Chance:
        """Return what is random in one stage's operations."""
        return Chance(noise["sign"][:, stage], noise["place"][:, stage], noise["partner"][:, stage])


@dataclass(frozen=True)
class RandAugmentConfig:
    """What is applied to an image.

    Attributes:
        number: How many operations are applied to an image.
        magnitude: How strong they are.
        operations: The operations to draw from.
    """

    number: Annotated[int, Int(1, 4)] = 2
    magnitude: Annotated[float | Learned, UNIT, WITHIN] = 0.3
    operations: tuple[str, ...] = STANDARD

    def __post_init__(self) -> None:
        if not self.operations:
            raise LearnerError("learner.augmentation.operations: at least one is needed")
        check_items("operations", self.operations, OPERATIONS.__getitem__)


@AUGMENTATIONS.register("rand_augment")
class RandAugment(ImageAugmentation):
    """``number`` operations, each drawn uniformly for each image, at one magnitude: fixed, searched or learned."""

    config: RandAugmentConfig

    def __init__(self, config: RandAugmentConfig) -> None:
        super().__init__(config)
        self.stages = config.number

    def draw_noise(self, examples: Tensor, steps: int, generator: Generator, *, training: bool) -> Tensors:
        noise = super().draw_noise(examples, steps, generator, training=training)
        shape = noise["sign"].shape
        return noise | {"operation": torch.randint(len(self.config.operations), shape, generator=generator)}

    def varied(self, phi: Tensors, x: Tensor, noise: Tensors) -> Tensor:
        names = self.config.operations
        magnitude = torch.as_tensor(self.knob(phi, "magnitude"), dtype=x.dtype, device=x.device)
        magnitudes = magnitude.expand(x.shape[0], len(names))
        for stage in range(self.stages):
            weights = one_hot(noise["operation"][:, stage], len(names), x)
            x = vary(x, names, weights, magnitudes, self.chance(noise, stage))
        return x

    def policies(self, phi: Tensors) -> tuple[Policy, ...]:
        magnitude, names = float(self.knob(phi, "magnitude")), self.config.operations
        subs = tuple(SubPolicy(1 / len(names), (Use(name, 1.0, magnitude),)) for name in names)
        return (Policy("rand_augment", subs, self.config.number),)
