"""Where the inner loop starts: learned by the outer loop, random, or where an exported bundle has arrived.

Finn, Abbeel and Levine, 2017, https://arxiv.org/abs/1703.03400: the start is phi itself, so
the outer loop reaches it through every inner step. Costs nothing beyond the estimator.
"""

from dataclasses import dataclass

from torch import Generator

from metaloom.learners.component import Component
from metaloom.learners.networks.base import Network
from metaloom.learners.registry import Registry
from metaloom.learners.tensors import Tensors

INITIALIZATIONS: Registry[type[Component]] = Registry("initialization")


@INITIALIZATIONS.register("learned")
class LearnedInitialization(Component):
    """phi is one tensor per network parameter: the shared starting weights."""

    slot = "initialization"
    reaches_losses = False
    learns = True

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        """Start from the network's own draw."""
        return {name: value.clone() for name, value in theta.items()}


class FixedInitialization(Component):
    """A start that is not learned: the state holds it."""

    slot = "initialization"
    reaches_losses = False

    @property
    def resamples(self) -> bool:
        """Whether each outer step draws its own start."""
        return False

    @property
    def resamples_evaluated(self) -> bool:
        """Whether each evaluated task draws its own start."""
        return False

    def draw(self, network: Network, generator: Generator) -> Tensors:
        """Return starting weights."""
        return network.initial(generator)


@dataclass(frozen=True)
class RandomConfig:
    """Who draws new starting weights; all others share one draw.

    Attributes:
        resample: Every outer step.
        resample_evaluated: Every task that is evaluated or adapted to, so that no start is one that was learned from.
    """

    resample: bool = False
    resample_evaluated: bool = False


@INITIALIZATIONS.register("random")
class RandomInitialization(FixedInitialization):
    """The network's own draw, from the trial's seed; nothing is learned."""

    Config = RandomConfig
    config: RandomConfig

    @property
    def resamples(self) -> bool:
        return self.config.resample

    @property
    def resamples_evaluated(self) -> bool:
        return self.config.resample_evaluated


@dataclass(frozen=True)
class PretrainedConfig:
    """Where the starting weights are.

    Attributes:
        bundle: Folder of an exported bundle of the same network.
    """

    bundle: str


@INITIALIZATIONS.register("pretrained")
class PretrainedInitialization(FixedInitialization):
    """The weights that a bundle starts from; nothing is learned. ``Network.starting_at`` holds them."""

    Config = PretrainedConfig
    config: PretrainedConfig


@INITIALIZATIONS.register("fine_tuned")
class FineTunedInitialization(LearnedInitialization):
    """Learned, from where a bundle starts on."""

    Config = PretrainedConfig
    config: PretrainedConfig


FROM_BUNDLE = (PretrainedInitialization, FineTunedInitialization)
