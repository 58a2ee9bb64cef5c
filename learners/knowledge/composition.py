"""How several components fill one slot together: losses add, weights multiply, augmentations follow one another."""

import math

from torch import Tensor

from metaloom.learners.component import Composite
from metaloom.learners.episode import TaskShape
from metaloom.learners.knowledge.augmentation import Augmentation
from metaloom.learners.knowledge.loss import Loss
from metaloom.learners.knowledge.policies import Policy
from metaloom.learners.knowledge.sample_weights import Examples, Weighting
from metaloom.learners.tensors import Tensors


class SumOfLosses(Composite, Loss):
    """l = l_1 + l_2 + ...; a member's share is set by its own scale."""

    members: tuple[Loss, ...]

    def losses(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        parts = zip(self.members, self.parts(phi), strict=True)
        each = [member.losses(own, outputs, targets) for member, own in parts]
        return sum(each[1:], start=each[0])


class ProductOfWeights(Composite, Weighting):
    """w = w_1 w_2 ...; divided by the batch's sum where a member divides its own."""

    members: tuple[Weighting, ...]

    def weights(self, phi: Tensors, examples: Examples) -> Tensor:
        parts = zip(self.members, self.parts(phi), strict=True)
        each = (member.checked_weights(own, examples) for member, own in parts)
        return math.prod(each, start=examples.losses.new_ones(()))

    @property
    def normalizes(self) -> bool:
        return any(member.normalizes for member in self.members)


class ChainOfAugmentations(Composite, Augmentation):
    """The first is applied first."""

    members: tuple[Augmentation, ...]

    def transform(self, phi: Tensors, x: Tensor, noise: Tensors) -> Tensor:
        for member, own, drawn in zip(self.members, self.parts(phi), self.parts(noise), strict=True):
            x = member.transform(own, x, drawn)
        return x

    def check(self, task: TaskShape) -> None:
        for member in self.members:
            member.check(task)

    def policies(self, phi: Tensors) -> tuple[Policy, ...]:
        each = (member.policies(own) for member, own in zip(self.members, self.parts(phi), strict=True))
        return tuple(policy for policies in each for policy in policies)
