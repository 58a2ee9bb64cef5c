"""Where the inner loop starts: learned by the outer loop, or random.

Finn, Abbeel and Levine, 2017, https://arxiv.org/abs/1703.03400: the start is phi itself, so
the outer loop reaches it through every inner step. Costs nothing beyond the estimator.
"""

from dataclasses import dataclass

from torch import Generator

from metaloom.learners.base import Tensors
from metaloom.learners.knowledge.slots import Component
from metaloom.learners.networks import Network
from metaloom.learners.registry import Registry

INITIALIZATIONS: Registry[type[Component]] = Registry("initialization")


@INITIALIZATIONS.register("learned")
class LearnedInitialization(Component):
    """phi is one tensor per network parameter: the shared starting weights."""

    slot = "initialization"
    learns = True

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        """Start from the network's own draw."""
        return {name: value.clone() for name, value in theta.items()}


@dataclass(frozen=True)
class RandomConfig:
    """Whether each outer step draws new starting weights, or all share one draw."""

    resample: bool = False


@INITIALIZATIONS.register("random")
class RandomInitialization(Component):
    """The network's own draw, from the trial's seed; nothing is learned."""

    slot = "initialization"
    Config = RandomConfig
    config: RandomConfig

    def draw(self, network: Network, generator: Generator) -> Tensors:
        """Draw starting weights."""
        return network.parameters(generator)
