"""The components of one learner, and what is drawn before an inner loop so that its steps are pure functions."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Generator, Tensor

from metaloom.learners.component import OUTER_STEP, Component
from metaloom.learners.episode import Episode, Support
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.augmentation import Augmentation
from metaloom.learners.knowledge.distilled_data import TrainingData
from metaloom.learners.knowledge.loss import Loss, Penalty, SumOfLosses
from metaloom.learners.knowledge.sample_weights import Weighting
from metaloom.learners.knowledge.update_rules import UpdateRule
from metaloom.learners.networks.base import Network
from metaloom.learners.state import knowledge_of
from metaloom.learners.tensors import Tensors, part, under

BATCH, ROWS = "batch", "rows"  # the place in an episode's noise of the rows that each step trains on
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Slots:
    """The components of one learner."""

    architecture: Network
    initialization: Component
    update: UpdateRule
    weighting: Weighting
    loss: Loss
    data: TrainingData
    augmentation: Augmentation

    def items(self) -> list[tuple[str, Component]]:
        """Name every slot's component."""
        return [(name, getattr(self, name)) for name in self.__dataclass_fields__]

    @cached_property
    def penalties(self) -> tuple[Penalty, ...]:
        """Return the terms of the parameters in the inner loss."""
        return self.loss.penalties if isinstance(self.loss, SumOfLosses) else ()

    @cached_property
    def beside_the_losses(self) -> tuple[str, ...]:
        """Return the prefixes of phi on which no inner loss at a given theta depends."""
        return tuple(f"{name}/" for name, component in self.items() if not component.reaches_losses)

    def draw(
        self,
        phi: Tensors,
        episode: Episode,
        steps: int,
        generator: Generator,
        *,
        training: bool,
        outer_step: int = 0,
        batch_size: int | None = None,
    ) -> Episode:
        """Return the episode with its training data selected, and the random numbers of its inner loop by slot."""
        episode = self.data.select(episode, generator)
        random = [(name, component) for name, component in self.items() if component.random]
        if not random and batch_size is None:
            return episode
        with torch.no_grad():
            x, _ = self.data.batch(knowledge_of(phi, "data"), episode)
        noise: Tensors = {}
        count, size = len(x), min(batch_size or len(x), len(x))
        x = x[:size]  # each step trains on so many
        for name, component in random:
            drawn = component.draw_noise(x, steps, generator, training=training)
            drawn |= component.draw_query_noise(episode.query_x, steps, generator)
            if drawn and component.anneals:
                drawn[OUTER_STEP] = torch.full((steps + 1,), outer_step)
            noise |= under(name, drawn)
        if size < count:
            seed = int(torch.randint(MAX_SEED, (), generator=generator, device=generator.device))
            noise |= under(BATCH, {ROWS: batches(count, size, steps, seed).to(x.device)})
        return replace(episode, noise={name: cast_like(value, x) for name, value in noise.items()})


def batches(count: int, size: int, steps: int, seed: int) -> Tensor:
    """Return which of ``count`` examples each step trains on, and a row for after the last: [steps + 1, size] int64.

    The examples are shuffled and taken in turn, and shuffled again when all have been taken. Step t's are the same
    whatever the number of steps.
    """
    generator, wanted = torch.Generator().manual_seed(seed), (steps + 1) * size
    rounds = [torch.randperm(count, generator=generator) for _ in range(math.ceil(wanted / count))]
    return torch.cat(rounds)[:wanted].view(steps + 1, size)


def cast_like(value: Tensor, like: Tensor) -> Tensor:
    """Move a tensor to another's device; a floating one takes its precision too."""
    return value.to(like.device, like.dtype if value.is_floating_point() else value.dtype)


def noise_of(episode: Episode, slot: str, index: int) -> Tensors:
    """Return row ``index`` of a slot's random numbers."""
    return {name: value[index] for name, value in part(episode.noise, slot, optional=True).items()}


def check_plain(support: Support) -> None:
    """Refuse what an inner loop would ignore."""
    for name in support.given():
        raise LearnerError(f"support.{name}: inner steps do not use it; leave it out, or use another prediction")
