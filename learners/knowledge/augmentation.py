"""How the inner loop's examples are varied: the slot. Its kinds for images are in ``image_augmentation.py``."""

from torch import Tensor

from metaloom.learners.component import Component
from metaloom.learners.episode import TaskShape
from metaloom.learners.knowledge.policies import Policy
from metaloom.learners.registry import Registry
from metaloom.learners.tensors import Tensors

AUGMENTATIONS: Registry[type[Component]] = Registry("augmentation")


class Augmentation(Component):
    """A transformation of the inner loop's examples."""

    slot = "augmentation"

    def check(self, task: TaskShape) -> None:
        """Refuse a task whose examples it cannot vary; raises LearnerError."""
        return

    def transform(self, phi: Tensors, x: Tensor, noise: Tensors) -> Tensor:
        """Return the varied examples, of the shape of ``x``: [n, *features].

        Args:
            phi: This slot's part of phi.
            x: The examples.
            noise: This step's row of what ``draw_noise`` gave.
        """
        return x

    def policies(self, phi: Tensors) -> tuple[Policy, ...]:
        """Return what it does as readable policies, in the order of their application; empty if it does nothing."""
        return ()


@AUGMENTATIONS.register("none")
class NoAugmentation(Augmentation):
    """The examples as they are."""
