"""Where the inner loop starts: learned by the outer loop, random, or at the weights of an exported bundle.

Finn, Abbeel and Levine, 2017, https://arxiv.org/abs/1703.03400: the start is phi itself, so the outer gradient
reaches it through every inner step. Costs nothing beyond the estimator.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from torch import Generator

from metaloom.learners.component import Component
from metaloom.learners.domains import Added, Bounds, Int
from metaloom.learners.networks.base import Network
from metaloom.learners.registry import Registry
from metaloom.learners.tensors import Tensors

INITIALIZATIONS: Registry[type[Component]] = Registry("initialization")
STAGE = "stage:"  # before the name of a stage, where a bundle's folder stands otherwise


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
    resamples = False  # whether each outer step draws its own start
    resamples_evaluated = False  # whether each evaluated task draws its own start

    def draw(self, network: Network, generator: Generator) -> Tensors:
        """Return starting weights."""
        return network.initial(generator)


@dataclass(frozen=True)
class RandomConfig:
    """What draws its own starting weights; all others share one draw.

    Attributes:
        resample: Every outer step.
        resample_evaluated: Every task that is evaluated or adapted to, so that its start was not trained on.
    """

    resample: bool = False
    resample_evaluated: bool = False


@INITIALIZATIONS.register("random")
class RandomInitialization(FixedInitialization):
    """The network's own draw, from the trial's seed; nothing is learned."""

    config: RandomConfig

    def __init__(self, config: RandomConfig) -> None:
        super().__init__(config)
        self.resamples, self.resamples_evaluated = config.resample, config.resample_evaluated


@dataclass(frozen=True)
class PretrainedConfig:
    """Where the network is from.

    Attributes:
        bundle: Folder of an exported bundle of the same network; of an ``ensemble`` one folder for each member.
        layers: How many layers are taken, from the inputs on; the others and the head are drawn (Yosinski et al., 2014,
            https://arxiv.org/abs/1411.1792). None takes the whole body, and the head where it has the same shape.
        freeze: Whether neither loop moves the layers that are taken.
    """

    bundle: str | tuple[str, ...]
    layers: Annotated[int | None, Int(0, 20), Bounds(at_least=0), Added()] = None
    freeze: Annotated[bool, Added()] = False


@INITIALIZATIONS.register("pretrained")
class PretrainedInitialization(FixedInitialization):
    """The weights that a bundle starts from; nothing is learned. ``Network.starting_at`` holds them."""

    config: PretrainedConfig


@INITIALIZATIONS.register("fine_tuned")
class FineTunedInitialization(LearnedInitialization):
    """Learned, from the start of a bundle."""

    config: PretrainedConfig


FROM_BUNDLE = (PretrainedInitialization, FineTunedInitialization)


def stages_of(bundle: Any) -> list[str]:
    """Return the names of the stages that a resolved ``bundle`` means; none where it is of folders."""
    given = bundle if isinstance(bundle, list | tuple) else [bundle]
    return [one.removeprefix(STAGE) for one in given if isinstance(one, str) and one.startswith(STAGE)]
