"""Draws episodes: episode i of a split depends on (seed, split, i) and on nothing else."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from numpy.random import Generator, Philox
from numpy.typing import NDArray
from torch import Tensor

from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.workers.data import base
from metaloom.workers.data.base import SPLITS, DataError
from metaloom.workers.data.store import Arrays

Rows = NDArray[np.int64]
_MASK = 2**64 - 1
MOST_SHUFFLED = 256  # rows of a class up to which one vectorized shuffle is faster than a draw per class
DIVISION, NOISE, IMBALANCE, FOLDS = 1, 2, 3, 4  # purposes of the streams of `fixed_generator`


def episode_generator(seed: int, split: str, index: int) -> Generator:
    """Return the random stream of one episode.

    Philox is a counter-based generator: (seed, split) is its key and the index the counter's highest word, so streams
    are 2**192 draws apart, and each is reached directly.
    """
    key = np.array([seed & _MASK, SPLITS.index(split)], dtype=np.uint64)
    counter = np.array([0, 0, 0, index], dtype=np.uint64)
    return Generator(Philox(key=key, counter=counter))


def fixed_generator(seed: int, purpose: int) -> Generator:
    """Return the stream of the draws that are made once per data set, such as a split or the label noise."""
    return Generator(Philox(key=np.array([seed & _MASK, 1000 + purpose], dtype=np.uint64)))


def draw_seed(generator: Generator) -> int:
    """Draw the seed that an episode carries."""
    return int(generator.integers(2**63))


def to_inputs(stored: NDArray[Any], scale: float) -> Tensor:
    """Return gathered rows as float32, divided by ``scale`` (255 for bytes)."""
    inputs = torch.from_numpy(np.ascontiguousarray(stored)).to(torch.float32)
    return inputs if scale == 1.0 else inputs.div_(scale)


@dataclass(frozen=True)
class ClassTable:
    """The classes of a source, those of meta-train first, then validation, then test.

    Attributes:
        starts: First row of each class: its rows are contiguous.
        counts: Rows of each class.
        turns: How many quarter turns each class applies to its images.
        ends: For each split, the source-wide ids [first, last) of its classes.
    """

    starts: Rows
    counts: Rows
    turns: Rows
    ends: Mapping[str, tuple[int, int]]
    names: Sequence[str]

    @classmethod
    def from_splits(cls, splits: Mapping[str, Sequence[str]], spans: Mapping[str, Sequence[int]]) -> Self:
        """Number the classes in the order of the splits, given each class's first row and number of rows.

        Raises DataError if a class is in two splits.
        """
        names = [name for split in SPLITS for name in splits[split]]
        if twice := sorted(name for name, count in Counter(names).items() if count > 1):
            raise DataError(f"class '{twice[0]}' stands in more than one split")
        starts, counts = np.array([spans[name] for name in names], dtype=np.int64).reshape(-1, 2).T
        ends = np.cumsum([0, *(len(splits[split]) for split in SPLITS)]).tolist()
        spans_of_splits = dict(zip(SPLITS, pairwise(ends), strict=True))
        return cls(starts, counts, np.zeros(len(names), dtype=np.int64), spans_of_splits, names)

    @property
    def splits(self) -> dict[str, list[str]]:
        """The names of each split's classes."""
        return {split: list(self.names[first:last]) for split, (first, last) in self.ends.items()}

    @classmethod
    def divided(cls, spans: Mapping[str, Sequence[int]], validation: float, test: float) -> Self:
        """Divide classes among the splits by these fractions, as ``split_classes`` does."""
        return cls.from_splits(split_classes(list(spans), validation, test), spans)

    def with_rotations(self) -> Self:
        """Turn each class into four, by quarter turns; a character's four stay in its split."""
        return type(self)(
            starts=np.repeat(self.starts, 4),
            counts=np.repeat(self.counts, 4),
            turns=np.tile(np.arange(4), len(self.names)),
            ends={split: (4 * first, 4 * last) for split, (first, last) in self.ends.items()},
            names=[f"{name} {90 * turn}°" if turn else name for name in self.names for turn in range(4)],
        )


class FewShotSource(base.Source):
    """N-way K-shot episodes over classes that no two splits share. A subclass adds ``open``.

    Args:
        arrays: Column ``x`` [samples, *features], rows of a class contiguous, classes in the table's order.
        table: The classes.
        scale: Divisor of the stored values.
        inputs: Shape of one example as the learner sees it.
    """

    def __init__(
        self, arrays: Arrays, table: ClassTable, config: Any, *, seed: int, scale: float, inputs: tuple[int, ...]
    ) -> None:
        self.config, self.table, self.seed, self.scale = config, table, seed, scale
        self._x, self.digest = arrays["x"], arrays.digest
        self.shape = self._shape(inputs)
        check_episodes(self.name, table, ways=self.shape.outputs, shots=config.shots, queries=config.queries)

    def _shape(self, inputs: tuple[int, ...]) -> TaskShape:
        first, last = self.table.ends["train"]
        return TaskShape("classification", inputs, self.config.ways, classes=last - first)

    def episode(self, split: str, index: int) -> base.SampledEpisode:
        """Draw ways, their order (which is their labels), and disjoint support and query rows."""
        base.check_split(split, index)
        generator = episode_generator(self.seed, split, index)
        ways, shots, queries = self.config.ways, self.config.shots, self.config.queries
        first, last = self.table.ends[split]
        ids = first + generator.choice(last - first, ways, replace=False)
        counts, starts = self.table.counts[ids], self.table.starts[ids]
        rows = starts[:, None] + _draw_within(counts, shots + queries, generator)  # [ways, shots + queries]
        x = self._gather(rows, self.table.turns[ids])
        labels = torch.arange(ways)
        episode = Episode(
            Support(x[:, :shots].flatten(0, 1), labels.repeat_interleave(shots)),
            x[:, shots:].flatten(0, 1),
            labels.repeat_interleave(queries),
            torch.from_numpy(ids - first),
        )
        sample_ids = rows + self.table.turns[ids][:, None] * len(self._x)
        ordered = np.concatenate([sample_ids[:, :shots].ravel(), sample_ids[:, shots:].ravel()])
        return base.SampledEpisode(episode, draw_seed(generator), tuple(ids.tolist()), tuple(ordered.tolist()))

    def _gather(self, rows: Rows, turns: Rows) -> Tensor:
        """Return float32 [ways, shots + queries, *inputs], each way turned as its class says."""
        stored = self._x[rows]
        for turn in (1, 2, 3):
            if (turned := turns == turn).any():
                stored[turned] = np.rot90(stored[turned], turn, axes=(2, 3))
        return to_inputs(stored, self.scale).view(*rows.shape, *self.shape.inputs)


def _draw_within(counts: Rows, each: int, generator: Generator) -> Rows:
    """Draw ``each`` distinct places below every count: int64 [len(counts), each]."""
    most = int(counts.max())
    if most > MOST_SHUFFLED:
        return np.stack([generator.choice(count, each, replace=False) for count in counts.tolist()])
    keys = generator.random((len(counts), most))
    keys[np.arange(most) >= counts[:, None]] = 2.0  # above every key: never drawn
    return keys.argsort(axis=1)[:, :each]


def check_episodes(source: str, table: ClassTable, *, ways: int, shots: int, queries: int) -> None:
    """Refuse episodes for which a split has too few classes, or a class too few samples; raises DataError."""
    each = shots + queries
    for split, (first, last) in table.ends.items():
        if last - first < ways:
            raise DataError(
                f"tasks.ways: {ways} ways need as many classes, but the {split} split of {source} has {last - first}"
            )
        counts = table.counts[first:last]
        if counts.min() < each:
            short = first + int(counts.argmin())
            raise DataError(
                f"tasks.shots, tasks.queries: {shots} shots and {queries} queries need {each} samples of each class, "
                f"but '{table.names[short]}' ({split} split of {source}) has {table.counts[short]}"
            )


def spans_of(sizes: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Return first row and number of rows of classes that are stored one after another."""
    ends = np.cumsum(list(sizes.values())).tolist()
    return {name: (end - size, size) for (name, size), end in zip(sizes.items(), ends, strict=True)}


def split_classes(names: Sequence[str], validation: float, test: float) -> dict[str, list[str]]:
    """Divide classes among the splits at random, always equally for the same names in the same order.

    ``validation`` and ``test`` are fractions; above 0 they give at least one class. Meta-train keeps the rest; raises
    DataError if it is empty.
    """
    first, tested = [max(1, round(len(names) * fraction)) if fraction > 0 else 0 for fraction in (validation, test)]
    second = first + tested
    if second >= len(names):
        raise DataError(
            f"tasks.validation_fraction, tasks.test_fraction: {validation} and {test} of {len(names)} classes leave "
            f"none to train on"
        )
    order = [names[place] for place in fixed_generator(0, DIVISION).permutation(len(names))]
    return {"train": sorted(order[second:]), "validation": sorted(order[:first]), "test": sorted(order[first:second])}
