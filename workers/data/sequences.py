"""Sequences over any few-shot source: the examples of an episode in a random order, all of them to be answered.

The support set is empty. The label of an example comes with the next one, which is the solver's part
(``TaskKind.in_order``). Labels are drawn for each episode, as the few-shot source draws them.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.random import Philox

from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.task_kinds import SEQUENCE
from metaloom.search_spaces.sections.sequences import SequenceSettings
from metaloom.workers.data.base import DataError, SampledEpisode, Source

_ORDER = 77  # apart from the other streams of an episode's seed


class SequencesOf(Source):
    """The episodes of a few-shot source as sequences."""

    Config = SequenceSettings

    def __init__(self, of: Source) -> None:
        self.of = of
        self.name, self.digest, self.notes = of.name, of.digest, of.notes
        self.shape = replace(of.shape, kind=SEQUENCE.name, class_features=None)

    @classmethod
    def open(cls, config: Any, *, seed: int, cache: Path, of: type[Source] = Source) -> Self:
        """Open the few-shot source ``of`` with as many examples of each class as a sequence has."""
        try:
            return cls(of.open(config.few_shot(), seed=seed, cache=cache))
        except DataError as error:
            if not str(error).startswith("tasks.shots"):
                raise
            each = f"{config.length} examples of {config.ways} classes are {config.length // config.ways} of each"
            raise DataError(f"tasks.length: {each}: {error}") from error

    def as_trained(self, task: TaskShape) -> "SequencesOf":
        """Return the source with its examples in the numbers of training."""
        return type(self)(self.of.as_trained(task))

    def episode(self, split: str, index: int) -> SampledEpisode:
        """Draw the few-shot episode, and the order of its examples by its seed."""
        sampled = self.of.episode(split, index)
        drawn = sampled.episode
        x, y = torch.cat([drawn.support_x, drawn.query_x]), torch.cat([drawn.support_y, drawn.query_y])
        generator = np.random.Generator(Philox(key=np.array([sampled.seed, _ORDER], dtype=np.uint64)))
        order = generator.permutation(len(y))
        mixed = torch.from_numpy(order)
        sequence = Episode(Support(x[:0], y[:0]), x[mixed], y[mixed], drawn.class_ids)
        ids = tuple(np.asarray(sampled.sample_ids, dtype=np.int64)[order].tolist()) if sampled.sample_ids else ()
        return replace(sampled, episode=sequence, sample_ids=ids)

    def class_name(self, class_id: int) -> str:
        """Return the name that the few-shot source has for a class."""
        return self.of.class_name(class_id)

    def available(self, split: str) -> int | None:
        """Return how many distinct episodes the split has; None if it is endless."""
        return self.of.available(split)
