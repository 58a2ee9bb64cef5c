"""A user's own labelled data set as one task: its examples are divided into parts, stratified by class.

The division depends on the data and the settings alone, never on the seed of the episodes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import unknown
from metaloom.learners.task_kinds import CLASSIFICATION, TASK_KINDS
from metaloom.search_spaces.sections.tasks import UserTaskSettings
from metaloom.workers.data import sampler
from metaloom.workers.data.base import DataError, some
from metaloom.workers.data.sampler import Rows
from metaloom.workers.data.single_task import SingleTaskSource
from metaloom.workers.data.store import Arrays
from metaloom.workers.durable import digest

TAKEN_OUT = ("test", "validation", "meta")  # of the training examples, in this order
PARTS = ("train", "meta", "validation", "test")
SPELLINGS = {
    "training": "train",
    "clean": "meta",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "testing": "test",
}

OF_EPISODES = frozenset(  # settings on which the arrays do not depend
    ("path", "episodes", "batch", "meta_batch", "queries", "label_noise", "noise_over", "imbalance", "train_on")
)


def part_called(name: str) -> str | None:
    """Return the part that a split column or a folder names; None if it names none."""
    plain = name.strip().lower()
    part = SPELLINGS.get(plain, plain)
    return part if part in PARTS else None


def part_named(name: str, where: str) -> str:
    """Return the part that a split column names; raises DataError, which begins with ``where``."""
    part = part_called(name)
    if part is None:
        raise DataError(f"{where}: {unknown('part', name, PARTS)}")
    return part


def digest_with(data: str, parts: Mapping[str, Rows]) -> str:
    """Return the digest of data that are divided in this way."""
    rows = b"".join(np.ascontiguousarray(parts[part]).tobytes() for part in PARTS)
    return digest(data.encode() + rows)[:16]


def divide_examples(strata: Rows, config: UserTaskSettings, given: Sequence[str] | None = None) -> dict[str, Rows]:
    """Return the rows of each part, each class in every part in its proportion, as far as its examples go.

    Args:
        strata: The class of each example [examples]; equal numbers where there are none.
        config: The fractions.
        given: The part that each example belongs to, where the data say it: parts that none belongs to are taken out
            of the training examples.

    Raises:
        DataError: A part has no example.
    """
    parts = {} if given is None else {part: np.flatnonzero(np.asarray(given) == part) for part in set(given)}
    free = parts.pop("train", np.arange(0) if parts else np.arange(len(strata)))
    if not len(free):
        raise DataError(f"no example belongs to the part train (parts with examples: {', '.join(sorted(parts))})")
    order = free[_interleaved(strata[free])]
    for part in TAKEN_OUT:
        if part not in parts:
            size = max(1, round(len(free) * getattr(config, f"{part}_fraction")))
            parts[part], order = order[:size], order[size:]
    if not len(order):
        raise DataError(f"{len(free)} examples are too few to divide into training, meta, validation and test sets")
    return {**parts, "train": order}


def _interleaved(strata: Rows) -> Rows:
    """Return an order of the places in which every stretch holds each class in its proportion.

    The places of a class are shuffled and spread evenly over (0, 1). Of a class with one example it is in the middle,
    and so in the training set.
    """
    generator = sampler.fixed_generator(0, sampler.DIVISION)
    shuffled = generator.permutation(len(strata))
    _, classes, counts = np.unique(strata[shuffled], return_inverse=True, return_counts=True)
    by_class = np.argsort(classes, kind="stable")
    starts = np.cumsum(counts) - counts
    within = np.arange(len(strata)) - np.repeat(starts, counts)
    spread = (within + 0.5) / np.repeat(counts, counts)
    return shuffled[by_class[np.lexsort((generator.random(len(strata)), spread))]]


def stored(columns: Mapping[str, NDArray[Any]], parts: Mapping[str, Rows], about: Mapping[str, Any]) -> Arrays:
    """Return what the cache keeps of a divided data set; ``UserTask`` reads it.

    Args:
        columns: ``x`` [examples, ...] and ``y`` [examples].
        parts: The rows of each part; every row is in one.
        about: The names of the ``classes``, and whatever else the source keeps.
    """
    ends = np.cumsum([len(rows) for rows in parts.values()]).tolist()
    spans = {part: (end - len(rows), len(rows)) for end, (part, rows) in zip(ends, parts.items(), strict=True)}
    rows = np.concatenate(list(parts.values())).astype(np.int64)
    return Arrays({**columns, "rows": rows}, {**about, "parts": spans})


def with_target_noise(targets: NDArray[Any], fraction: float) -> NDArray[Any]:
    """Replace each row of targets, with this probability, by that of another example, all equally likely."""
    generator = sampler.fixed_generator(0, sampler.NOISE)
    replaced = generator.random(len(targets)) < fraction
    others = (np.arange(len(targets)) + generator.integers(1, max(len(targets), 2), len(targets))) % len(targets)
    return np.where(replaced[:, None], targets[others], targets)


class UserTask(SingleTaskSource):
    """One task of the user's own, of classes or of numbers. A subclass adds ``open``.

    Args:
        arrays: What ``stored`` returned; the targets of classes are their numbers [examples], others
            [examples, targets], standardized.
    """

    def __init__(self, arrays: Arrays, config: UserTaskSettings, **facts: Any) -> None:
        self.kind = TASK_KINDS[getattr(config, "kind", CLASSIFICATION.name)]
        self.class_names = tuple(arrays.about.get("classes", ()))
        self.digest = arrays.digest
        spans = arrays.about["parts"]
        parts = {part: np.asarray(arrays["rows"][start : start + count]) for part, (start, count) in spans.items()}
        if not self.kind.has_classes and config.imbalance != 1.0:
            raise DataError(f"tasks.imbalance: {self.kind.name} has no classes of other sizes; remove it")
        super().__init__(arrays["x"], arrays["y"], parts, config, **facts)
        if scaling := arrays.about.get("target_scaling"):
            mean, deviation = tuple(scaling["mean"]), tuple(scaling["deviation"])
            self.shape = replace(self.shape, target_mean=mean, target_deviation=deviation)

    def _targets(self, y: NDArray[Any]) -> NDArray[Any]:
        if not self.kind.has_classes:
            return np.asarray(y, dtype=np.float32)
        self._classes = len(self.class_names)
        return np.asarray(y, dtype=np.int64)

    def _thinned(self, true: NDArray[Any], train: Rows) -> Rows:
        return super()._thinned(true, train) if self.kind.has_classes else train

    def _with_noise(self, true: NDArray[Any]) -> NDArray[Any]:
        if self.kind.has_classes:
            return super()._with_noise(true)
        return with_target_noise(true, self.config.label_noise)

    def _shape(self, inputs: tuple[int, ...], trained_on: Rows) -> TaskShape:
        if not self.kind.has_classes:
            outputs = self.labels.shape[1]
            return TaskShape(self.kind.name, inputs, outputs, single_task=True, counts=(len(trained_on),))
        shape = super()._shape(inputs, trained_on)
        if absent := [self.class_names[label] for label, count in enumerate(shape.counts) if not count]:
            raise DataError(
                f"tasks.label: the {self.config.train_on} set has no example of {some(absent)}; leave such classes "
                "out, or hold out fewer examples"
            )
        return replace(shape, class_names=self.class_names)

    def _notes(self) -> Iterator[str]:
        sizes = ", ".join(f"{len(self.parts[part])} {part}" for part in PARTS)
        of = f" of {len(self.class_names)} classes: {some(self.class_names)}" if self.kind.has_classes else ""
        yield f"{sizes} examples{of}"
        if wrong := int(self.noisy.sum()):
            yield f"{wrong} training labels are wrong"
        yield from self._left_over()
        seen = set(self.labels[self.parts["test"]].ravel().tolist()) if self.kind.has_classes else set()
        if absent := [name for label, name in enumerate(self.class_names) if label not in seen]:
            yield f"the test set has no example of {some(absent)}"
