"""Which of many data sets are trained on, and which are held out for validation and test."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaloom.workers.data.base import SPLITS, DataError, some
from metaloom.workers.data.class_table import split_classes
from metaloom.workers.data.members import Listed, Member, distinct, listed, opened
from metaloom.workers.data.sampler import FewShotSource
from metaloom.workers.data.sequences import SequencesOf

HELD_OUT = ("validation", "test")


@dataclass(frozen=True)
class Divided:
    """The data sets of each split.

    Attributes:
        members: All data sets, open.
        of_split: For each split, the places in ``members`` of its data sets.
        weights: The weight of each training data set, relative to the others.
        told: What to tell the user.
    """

    members: Sequence[Member]
    of_split: Mapping[str, Sequence[int]]
    weights: Sequence[float]
    told: tuple[str, ...] = ()

    def shares(self, by_size: float) -> NDArray[np.float64]:
        """Return how often each training data set is drawn, [training data sets], with the sum 1.

        Raises DataError if all weights are 0, or sizes count where a data set has none.
        """
        weights = np.array(self.weights, dtype=np.float64)
        if by_size:
            weights = weights * np.array([self._size(place) for place in self.of_split["train"]]) ** by_size
        if not weights.sum() > 0:
            raise DataError("tasks.weights: all are 0; give at least one above 0")
        return np.asarray(weights / weights.sum(), dtype=np.float64)

    def _size(self, place: int) -> float:
        member = self.members[place]
        inner = member.source.of if isinstance(member.source, SequencesOf) else member.source
        if not isinstance(inner, FewShotSource):
            raise DataError(f"tasks.by_size: {member.name} draws tasks without end, so that it has no size; give 0")
        first, end = inner.table.ends["train"]
        return float(inner.table.counts[first:end].sum())


def divided(config: Any, *, seed: int, cache: Path) -> Divided:
    """Open the data sets of the settings; raises DataError, which names the one that cannot be opened."""
    lists = {"train": listed(config.sources, "tasks.sources")}
    lists |= {split: listed(getattr(config, split) or (), f"tasks.{split}") for split in HELD_OUT}
    weights = _weights(config.weights, lists["train"])
    told: tuple[str, ...] = ()
    if config.validation_fraction or config.test_fraction:
        lists, kept = _by_fraction(lists["train"], config.validation_fraction, config.test_fraction)
        weights = [weights[place] for place in kept]
        told = tuple(f"{split} takes {some([one.name for one in lists[split]])} as a whole" for split in HELD_OUT)
    _check_apart(lists, config.shared)
    every = [(split, one) for split in SPLITS for one in lists[split]]
    names, whole = distinct([one for _, one in every]), all(lists[split] for split in HELD_OUT)
    shared = {name: getattr(config, name) for name in config.shared}
    members = [
        opened(one, name, split if whole or split != "train" else None, shared, seed=seed, cache=cache)
        for name, (split, one) in zip(names, every, strict=True)
    ]
    number = count()
    of_split = {split: [next(number) for _ in lists[split]] for split in SPLITS}
    held_out = {split: of_split[split] or of_split["train"] for split in HELD_OUT}
    return Divided(members, {**of_split, **held_out}, weights, told)


def _check_apart(lists: Mapping[str, Sequence[Listed]], sizes: Sequence[str]) -> None:
    """Refuse a data set that is trained on and held out, whatever the ``sizes`` of its episodes; raises DataError."""

    def key(one: Listed) -> str:
        section = {name: value for name, value in one.section.items() if name not in sizes}
        return json.dumps(section, sort_keys=True, default=str)

    trained = {key(one): one for one in lists["train"]}
    for one in (one for split in HELD_OUT for one in lists[split] if one.can_be_whole):
        if (other := trained.get(key(one))) is not None:
            raise DataError(f"{one.place}: {one.name} is trained on too, by {other.place}; list it in one of both")


def _weights(given: Sequence[float] | None, sets: Sequence[Listed]) -> list[float]:
    """Return the weight of each data set: its share of its entry's; those of all data sets may be given instead."""
    if given is None:
        return [1.0] * len(sets)
    entries = sets[-1].entry + 1
    if len(given) == entries:
        return [given[one.entry] * one.share for one in sets]
    if len(given) == len(sets):
        return list(given)
    each = f", or {len(sets)}, one for each data set" if len(sets) != entries else ""
    raise DataError(f"tasks.weights: got {len(given)} numbers; give {entries}, one for each section of sources{each}")


def _by_fraction(sets: Sequence[Listed], validation: float, test: float) -> tuple[dict[str, list[Listed]], list[int]]:
    """Divide data sets among the splits, always equally for the same names; return the places of the training ones."""
    names = distinct(sets)
    split = split_classes(names, validation, test, "data sets")
    places = {part: [place for place, name in enumerate(names) if name in set(split[part])] for part in SPLITS}
    return {part: [sets[place] for place in places[part]] for part in SPLITS}, places["train"]


def number_trained_on(tasks: Mapping[str, Any]) -> int:
    """Return how many data sets a resolved tasks section of ``many`` is trained on: those with a weight above 0."""
    sets = listed(tasks["sources"], "tasks.sources")
    weights, kept = _weights(tasks.get("weights"), sets), list(range(len(sets)))
    if tasks.get("validation_fraction") or tasks.get("test_fraction"):
        _, kept = _by_fraction(sets, tasks["validation_fraction"], tasks["test_fraction"])
    return sum(weights[place] > 0 for place in kept)
