"""Draws episodes: episode i of a split depends on (seed, split, i) and on nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.random import Generator, Philox
from numpy.typing import NDArray
from torch import Tensor

from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.workers.data.base import (
    SPLITS,
    DataError,
    SampledEpisode,
    Source,
    SourceSummary,
    SplitSummary,
    check_at_least,
    check_split,
)
from metaloom.workers.data.store import Arrays

Rows = NDArray[np.int64]
_MASK = 2**64 - 1
MOST_SHUFFLED = 256  # rows of a class up to which one vectorized shuffle beats a draw per class
DIVISION, NOISE, IMBALANCE = 1, 2, 3  # purposes of the streams of `fixed_generator`


def episode_generator(seed: int, split: str, index: int) -> Generator:
    """Return the random stream of one episode.

    Philox is a counter-based generator: (seed, split) is its key and the index the
    counter's highest word, so streams are 2**192 draws apart and none has to be
    reached through another.
    """
    key = np.array([seed & _MASK, SPLITS.index(split)], dtype=np.uint64)
    counter = np.array([0, 0, 0, index], dtype=np.uint64)
    return Generator(Philox(key=key, counter=counter))


def fixed_generator(seed: int, purpose: int) -> Generator:
    """Return a stream for what is drawn once per data set: a split, the label noise."""
    return Generator(Philox(key=np.array([seed & _MASK, 1000 + purpose], dtype=np.uint64)))


def draw_seed(generator: Generator) -> int:
    """Draw the seed that an episode carries."""
    return int(generator.integers(2**63))


def to_inputs(stored: NDArray[Any], scale: float) -> Tensor:
    """Turn gathered rows into float32; ``scale`` divides bytes, so that 255 is 1."""
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
        names: One per class.
    """

    starts: Rows
    counts: Rows
    turns: Rows
    ends: Mapping[str, tuple[int, int]]
    names: Sequence[str]

    @classmethod
    def from_splits(cls, splits: Mapping[str, Sequence[str]], spans: Mapping[str, Sequence[int]]) -> Self:
        """Number the classes in the order of the splits.

        Args:
            splits: Class names of each split.
            spans: First row and number of rows of each class.

        Raises:
            DataError: A class stands in two splits.
        """
        names = [name for split in SPLITS for name in splits[split]]
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise DataError(f"class '{twice[0]}' stands in more than one split")
        starts, counts = np.array([spans[name] for name in names], dtype=np.int64).reshape(-1, 2).T
        ends = np.cumsum([len(splits[split]) for split in SPLITS]).tolist()
        return cls(
            starts=starts,
            counts=counts,
            turns=np.zeros(len(names), dtype=np.int64),
            ends=dict(zip(SPLITS, zip([0, *ends[:-1]], ends, strict=True), strict=True)),
            names=names,
        )

    def with_rotations(self) -> Self:
        """Turn each class into four, by quarter turns; a character's four stay in its split."""
        quarters = np.tile(np.arange(4), len(self.names))
        return type(self)(
            starts=np.repeat(self.starts, 4),
            counts=np.repeat(self.counts, 4),
            turns=quarters,
            ends={split: (4 * first, 4 * last) for split, (first, last) in self.ends.items()},
            names=[f"{name} {90 * turn}°" if turn else name for name in self.names for turn in range(4)],
        )


class FewShotSource(Source):
    """N-way K-shot episodes over classes that no two splits share.

    Subclasses only say where the arrays come from (``open``).

    Args:
        arrays: Column ``x`` [samples, *features], rows of a class contiguous, classes in the table's order.
        table: The classes.
        scale: What divides stored values.
        inputs: Shape of one example as the learner sees it.
    """

    def __init__(
        self, arrays: Arrays, table: ClassTable, config: Any, *, seed: int, scale: float, inputs: tuple[int, ...]
    ) -> None:
        self.ways, self.shots, self.queries = config.ways, config.shots, config.queries
        self.table, self.seed, self.scale = table, seed, scale
        self._x, self.digest = arrays["x"], arrays.digest
        first, last = table.ends["train"]
        self.shape = TaskShape("classification", inputs, self.ways, classes=last - first)
        check_at_least(self.name, 2, ways=self.ways)
        check_episodes(self.name, table, ways=self.ways, shots=self.shots, queries=self.queries)

    def episode(self, split: str, index: int) -> SampledEpisode:
        """Draw ways, their order (which is their labels), and disjoint support and query rows."""
        check_split(split, index)
        generator = episode_generator(self.seed, split, index)
        first, last = self.table.ends[split]
        ids = first + generator.choice(last - first, self.ways, replace=False)
        each = self.shots + self.queries
        counts, starts = self.table.counts[ids], self.table.starts[ids]
        rows = starts[:, None] + _draw_within(counts, each, generator)  # [ways, shots + queries]
        x = self._gather(rows, self.table.turns[ids])
        labels = torch.arange(self.ways)
        episode = Episode(
            Support(x[:, : self.shots].flatten(0, 1), labels.repeat_interleave(self.shots)),
            x[:, self.shots :].flatten(0, 1),
            labels.repeat_interleave(self.queries),
            torch.from_numpy(ids - first),
        )
        sample_ids = rows + self.table.turns[ids][:, None] * len(self._x)
        ordered = np.concatenate([sample_ids[:, : self.shots].ravel(), sample_ids[:, self.shots :].ravel()])
        return SampledEpisode(episode, draw_seed(generator), tuple(ids.tolist()), tuple(ordered.tolist()))

    def available(self, split: str) -> int | None:
        """Episodes are combinations: there is no end to them."""
        check_split(split, 0)
        return None

    def summary(self) -> SourceSummary:
        """Count the classes and samples of each split."""
        splits = {}
        for split, (first, last) in self.table.ends.items():
            splits[split] = SplitSummary(last - first, int(self.table.counts[first:last].sum()), None)
        return SourceSummary(self.name, self.shape, splits)

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
    check_at_least(source, 1, shots=shots, queries=queries)
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
    """Share classes out at random, always alike for the same names.

    Args:
        names: All classes, in a fixed order.
        validation: Fraction of the classes; at least one class where it is above 0.
        test: The same for the test split; meta-train keeps the rest.

    Raises:
        DataError: No class is left to train on.
    """
    held = [max(1, round(len(names) * fraction)) if fraction > 0 else 0 for fraction in (validation, test)]
    if sum(held) >= len(names):
        raise DataError(
            f"tasks.validation_fraction, tasks.test_fraction: {validation} and {test} of {len(names)} classes leave "
            f"none to train on"
        )
    order = [names[place] for place in fixed_generator(0, DIVISION).permutation(len(names))]
    first, second = held[0], sum(held)
    return {"train": sorted(order[second:]), "validation": sorted(order[:first]), "test": sorted(order[first:second])}
