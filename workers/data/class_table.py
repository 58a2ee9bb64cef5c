"""The classes of a few-shot source: which rows each has, and which split it belongs to."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from metaloom.workers.data.base import SPLITS, DataError
from metaloom.workers.data.streams import DIVISION, fixed_generator

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class ClassTable:
    """The classes of a source, those of meta-train first, then validation, then test.

    Attributes:
        starts: First row of each class: its rows are contiguous.
        counts: Rows of each class.
        turns: How many quarter turns each class applies to its images.
        ends: For each split, the source-wide ids [first, last) of its classes.
        groups: The group of each class, within which an episode's classes are drawn; empty where there are none.
        by_fraction: Whether fractions divided the classes among the splits, and so others could.
    """

    starts: Rows
    counts: Rows
    turns: Rows
    ends: Mapping[str, tuple[int, int]]
    names: Sequence[str]
    groups: Sequence[str] = ()
    by_fraction: bool = False

    @classmethod
    def from_splits(
        cls,
        splits: Mapping[str, Sequence[str]],
        spans: Mapping[str, Sequence[int]],
        groups: Mapping[str, str] | None = None,
        *,
        by_fraction: bool = False,
    ) -> Self:
        """Number the classes in the order of the splits, given each class's first row and number of rows.

        Raises DataError if a class is in two splits.
        """
        names = [name for split in SPLITS for name in splits[split]]
        if twice := sorted(name for name, count in Counter(names).items() if count > 1):
            raise DataError(f"class '{twice[0]}' stands in more than one split")
        starts, counts = np.array([spans[name] for name in names], dtype=np.int64).reshape(-1, 2).T
        ends = np.cumsum([0, *(len(splits[split]) for split in SPLITS)]).tolist()
        spans_of_splits = dict(zip(SPLITS, pairwise(ends), strict=True))
        turns, of_class = np.zeros(len(names), dtype=np.int64), [groups[name] for name in names] if groups else []
        return cls(starts, counts, turns, spans_of_splits, names, of_class, by_fraction)

    @property
    def splits(self) -> dict[str, list[str]]:
        """The names of each split's classes."""
        return {split: list(self.names[first:last]) for split, (first, last) in self.ends.items()}

    @classmethod
    def divided(cls, spans: Mapping[str, Sequence[int]], validation: float, test: float) -> Self:
        """Divide classes among the splits by these fractions, as ``split_classes`` does."""
        return cls.from_splits(split_classes(list(spans), validation, test), spans, by_fraction=True)

    def members(self, split: str) -> dict[str, Rows]:
        """Return the ids of each group's classes in a split, the groups in the order of their first class."""
        found: dict[str, list[int]] = {}
        for place in range(*self.ends[split]):
            found.setdefault(self.groups[place], []).append(place)
        return {group: np.array(places, dtype=np.int64) for group, places in found.items()}

    def all_in(self, split: str) -> Self:
        """Return the table with every class in one split, in the same order; the others are empty."""
        ends, place, last = {}, SPLITS.index(split), len(self.names)
        for number, name in enumerate(SPLITS):
            ends[name] = (0 if number <= place else last, 0 if number < place else last)
        return replace(self, ends=ends, by_fraction=False)

    def keeping(self, kept: NDArray[np.bool_]) -> Self:
        """Return the table of some of the classes, numbered without gaps; ``kept`` is [classes]."""
        before = np.concatenate([[0], np.cumsum(kept)]).tolist()
        return replace(
            self,
            starts=self.starts[kept],
            counts=self.counts[kept],
            turns=self.turns[kept],
            ends={split: (before[first], before[last]) for split, (first, last) in self.ends.items()},
            names=[self.names[place] for place in np.flatnonzero(kept).tolist()],
            groups=[self.groups[place] for place in np.flatnonzero(kept).tolist()] if self.groups else [],
        )

    def with_rotations(self) -> Self:
        """Turn each class into four, by quarter turns; a character's four stay in its split."""
        return replace(
            self,
            starts=np.repeat(self.starts, 4),
            counts=np.repeat(self.counts, 4),
            turns=np.tile(np.arange(4), len(self.names)),
            ends={split: (4 * first, 4 * last) for split, (first, last) in self.ends.items()},
            names=[f"{name} {90 * turn}°" if turn else name for name in self.names for turn in range(4)],
            groups=[group for group in self.groups for _ in range(4)],
        )


def spans_of(sizes: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Return first row and number of rows of classes that are stored one after another."""
    ends = np.cumsum(list(sizes.values())).tolist()
    return {name: (end - size, size) for (name, size), end in zip(sizes.items(), ends, strict=True)}


def split_groups(groups: Mapping[str, str], validation: float, test: float) -> dict[str, list[str]]:
    """Divide classes among the splits by whole groups, as ``split_classes`` does with classes.

    ``groups`` is the group of each class.
    """
    divided = split_classes(sorted(set(groups.values())), validation, test, "groups of classes")
    return {split: sorted(name for name in groups if groups[name] in set(divided[split])) for split in divided}


def split_classes(names: Sequence[str], validation: float, test: float, noun: str = "classes") -> dict[str, list[str]]:
    """Divide classes among the splits at random, always equally for the same names in the same order.

    ``validation`` and ``test`` are fractions; above 0 they give at least one class. Meta-train keeps the rest; raises
    DataError if it is empty.
    """
    first, tested = [max(1, round(len(names) * fraction)) if fraction > 0 else 0 for fraction in (validation, test)]
    second = first + tested
    if second >= len(names):
        raise DataError(
            f"tasks.validation_fraction, tasks.test_fraction: {validation} and {test} of {len(names)} {noun} leave "
            f"none to train on"
        )
    order = [names[place] for place in fixed_generator(0, DIVISION).permutation(len(names))]
    return {"train": sorted(order[second:]), "validation": sorted(order[:first]), "test": sorted(order[first:second])}
