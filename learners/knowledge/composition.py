"""How several components fill one slot together: losses add, weights multiply, augmentations follow one another."""

import math

from torch import Tensor

from metaloom.learners.component import Composite
from metaloom.learners.episode import TaskShape
from metaloom.learners.knowledge.augmentation import Augmentation
from metaloom.learners.knowledge.loss import Loss
from metaloom.learners.knowledge.policies import Policy
from metaloom.learners.knowledge.sample_weights import Examples, Weighting
from metaloom.learners.tensors import Tensors, part


class SumOfLosses(Composite, Loss):
    """l = l_1 + l_2 + ...; a member's share is set by its own scale."""

    members: tuple[Loss, ...]

    def losses(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        each = [member.losses(part(phi, str(i)), outputs, targets) for i, member in enumerate(self.members)]
        return sum(each[1:], start=each[0])


class ProductOfWeights(Composite, Weighting):
    """w = w_1 w_2 ...; divided by the batch's sum where a member divides its own."""

    members: tuple[Weighting, ...]

    def weights(self, phi: Tensors, examples: Examples) -> Tensor:
        return math.prod(
            (member.checked_weights(part(phi, str(i)), examples) for i, member in enumerate(self.members)),
            start=examples.losses.new_ones(()),
        )

    @property
    def normalizes(self) -> bool:
        return any(member.normalizes for member in self.members)


class ChainOfAugmentations(Composite, Augmentation):
    """The first is applied first."""

    members: tuple[Augmentation, ...]

    def transform(self, phi: Tensors, x: Tensor, noise: Tensors) -> Tensor:
        for index, member in enumerate(self.members):
            x = member.transform(part(phi, str(index)), x, part(noise, str(index)))
        return x

    def check(self, task: TaskShape) -> None:
        for member in self.members:
            member.check(task)

    def policies(self, phi: Tensors) -> tuple[Policy, ...]:
        each = (member.policies(part(phi, str(index))) for index, member in enumerate(self.members))
        return tuple(policy for policies in each for policy in policies)
