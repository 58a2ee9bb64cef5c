"""How the inner loop's examples are varied before the network sees them."""

from torch import Tensor

from metaloom.learners.base import Tensors
from metaloom.learners.knowledge.slots import Component
from metaloom.learners.registry import Registry

AUGMENTATIONS: Registry[type[Component]] = Registry("augmentation")


class Augmentation(Component):
    """A transformation of the inner loop's examples."""

    slot = "augmentation"

    def transform(self, phi: Tensors, x: Tensor, noise: Tensors) -> Tensor:
        """Return the varied examples, of the shape of ``x``: [n, *features].

        Args:
            phi: This slot's part of phi.
            x: The examples.
            noise: This step's row of what ``draw_noise`` gave.
        """
        return x


@AUGMENTATIONS.register("none")
class NoAugmentation(Augmentation):
    """The examples as they are."""
