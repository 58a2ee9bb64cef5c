"""Draws episodes: episode i of a split depends on (seed, split, i) and on nothing else."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.task_kinds import CLASSIFICATION
from metaloom.search_spaces.sections.few_shot import Protocol
from metaloom.workers.data import base
from metaloom.workers.data.class_features import ClassFeatures, Described, described
from metaloom.workers.data.class_table import ClassTable, Rows, spans_of, split_classes, split_groups
from metaloom.workers.data.enough import protocols_of, usable
from metaloom.workers.data.held_out import HeldOut
from metaloom.workers.data.query_balance import draw_counts, draw_queries
from metaloom.workers.data.store import Arrays
from metaloom.workers.data.streams import (
    DIVISION,
    FOLDS,
    IMBALANCE,
    NOISE,
    balance_generator,
    draw_seed,
    episode_generator,
    fixed_generator,
    outer_step_of,
    sizes_generator,
    unlabelled_generator,
)
from metaloom.workers.data.unlabelled import draw_unlabelled
from metaloom.workers.durable import digest

__all__ = [
    "DIVISION",
    "FOLDS",
    "IMBALANCE",
    "NOISE",
    "ClassTable",
    "FewShotSource",
    "Rows",
    "draw_seed",
    "episode_generator",
    "fixed_generator",
    "spans_of",
    "split_classes",
    "split_groups",
    "to_inputs",
]

Lookup = Callable[[Rows, Rows], Tensor]  # rows [ways, examples] and turns [ways] to [ways, examples, *what]


class _Queries(NamedTuple):
    """An episode's queries [n, *inputs], by class: how many of each, their ids [n], and all rows taken of each."""

    x: Tensor
    each: int | Tensor
    ids: Rows
    taken: Sequence[Rows]


MOST_SHUFFLED = 256  # rows of a class up to which one vectorized shuffle is faster than a draw per class


def to_inputs(stored: NDArray[Any], scale: float) -> Tensor:
    """Return gathered rows as float32, divided by ``scale`` (255 for bytes)."""
    inputs = torch.from_numpy(np.ascontiguousarray(stored)).to(torch.float32)
    return inputs if scale == 1.0 else inputs.div_(scale)


class FewShotSource(base.Source):
    """N-way K-shot episodes over classes that no two splits share. A subclass adds ``open``.

    Args:
        arrays: Column ``x`` [samples, *features], rows of a class contiguous, classes in the table's order.
        table: The classes.
        scale: Divisor of the stored values.
        inputs: Shape of one example as the learner sees it.
        classes: What describes the classes, of a source that has it built in; None: as the settings say.
    """

    def __init__(
        self,
        arrays: Arrays,
        table: ClassTable,
        config: Any,
        *,
        seed: int,
        scale: float,
        inputs: tuple[int, ...],
        classes: Described | None = None,
    ) -> None:
        self.config, self.seed, self.scale = config, seed, scale
        self._lookup: Lookup | None = None
        self._x, self.digest = arrays["x"], arrays.digest
        self.protocols = self._protocols()
        self.table, self.notes = usable(self.name, table, config, self.protocols)
        splits = self.table.ends if self.table.groups else ()
        self._groups = {split: list(self.table.members(split).values()) for split in splits}
        self.shape = self._shape(inputs)
        self._held = HeldOut.of(self.table, getattr(config, "seen_fraction", 0.0), self.protocols["train"].examples)
        self._described = classes or described(getattr(config, "class_features", None))
        self._describe(None)

    @property
    def class_features(self) -> ClassFeatures | None:
        """What describes each class, in the order of the table; None where nothing does."""
        return self._class_features

    @property
    def held(self) -> HeldOut:
        """The examples of the training classes that training leaves out."""
        return self._held

    def _describe(self, kept: TaskShape | None) -> None:
        """Read what describes the classes, by the numbers of a training, or fitted to the classes of meta-train."""
        self._class_features = None if self._described is None else self._described.of(self.table, kept)
        if (known := self._class_features) is not None:
            self.shape = replace(self.shape, class_features=known.task)
            self.digest = digest(f"{self.digest} {known.digest}".encode())[:16]
            self.notes = (*self.notes, *known.notes)

    def as_trained(self, task: TaskShape) -> Self:
        """Return the source with its classes described in the numbers of training."""
        if self._described is None or task.class_features in (None, self.shape.class_features):
            return self
        other = copy(self)
        other._describe(task.class_features)
        return other

    def _protocols(self) -> dict[str, Protocol]:
        return protocols_of(self.config)

    def _shape(self, inputs: tuple[int, ...]) -> TaskShape:
        first, last = self.table.ends["train"]
        train, apart = self.protocols["train"], any(one.unlabelled for one in self.protocols.values())
        classes, ways = last - first, train.ways[1]
        return TaskShape(CLASSIFICATION.name, inputs, ways, classes, varying=train.varies, unlabelled=apart)

    def class_name(self, class_id: int) -> str:
        """Return the name of a class by its place in the table."""
        return str(self.table.names[class_id])

    def sizes(self, split: str, index: int) -> tuple[int, int, int]:
        """Return the ways, shots and queries of an episode; those of one outer step have the same."""
        protocol = self.protocols[split]
        if not protocol.varies:
            return protocol.ways[0], protocol.shots[0], protocol.queries
        generator = sizes_generator(self.seed, split, outer_step_of(index, self.meta_batch))
        ways, shots = (int(generator.integers(*ends, endpoint=True)) for ends in (protocol.ways, protocol.shots))
        return ways, shots, protocol.queries

    def episode(self, split: str, index: int) -> base.SampledEpisode:
        """Draw ways, their order (which is their labels), and disjoint support and query rows."""
        base.check_split(split, index)
        generator = episode_generator(self.seed, split, index)
        ways, shots, queries = self.sizes(split, index)
        first, last = self.table.ends[split]
        within = np.arange(first, last)
        if self._groups:
            within = self._groups[split][int(generator.integers(len(self._groups[split])))]
        ids = within[generator.choice(len(within), ways, replace=False)]
        counts, starts = self.table.counts[ids], self.table.starts[ids]
        counts = counts - (self._held.counts[ids] if split == "train" else 0)
        rows = starts[:, None] + _draw_within(counts, shots + queries, generator)  # [ways, shots + queries]
        rows = rows if split != "train" else self._held.order(rows)
        turns = self.table.turns[ids]
        x, sample_ids = self.gather(rows, turns), rows + turns[:, None] * len(self._x)
        labels, known = torch.arange(ways), self._class_features
        classes = None if known is None else torch.from_numpy(known.values[ids])
        asked = _Queries(x[:, shots:].flatten(0, 1), queries, sample_ids[:, shots:].ravel(), list(rows))
        if self.protocols[split].dirichlet:
            asked = self._unequal(split, index, ids, rows)
        unlabelled, others = self._unlabelled(split, index, ids, asked.taken, within)
        episode = Episode(
            Support(x[:, :shots].flatten(0, 1), labels.repeat_interleave(shots), classes, unlabelled=unlabelled),
            asked.x,
            labels.repeat_interleave(asked.each),
            torch.from_numpy(ids - first),
        )
        ordered = np.concatenate([sample_ids[:, :shots].ravel(), others, asked.ids])
        return base.SampledEpisode(episode, draw_seed(generator), tuple(ids.tolist()), tuple(ordered.tolist()))

    def _unequal(self, split: str, index: int, ids: Rows, rows: Rows) -> "_Queries":
        """Return unequally many queries of each class, from the balanced episode's rows [ways, shots + queries]."""
        protocol = self.protocols[split]
        shots, generator = rows.shape[1] - protocol.queries, balance_generator(self.seed, split, index)
        sizes, turns = self.table.counts[ids], self.table.turns[ids]
        most = sizes - shots - protocol.unlabelled
        counts = draw_counts(protocol.dirichlet, len(ids) * protocol.queries, most, generator)
        asked = draw_queries(rows, self.table.starts[ids], sizes, counts, shots, generator)
        flat, turned = np.concatenate(asked), turns.repeat(counts)
        taken = [np.concatenate([own[:shots], more]) for own, more in zip(rows, asked, strict=True)]
        x = self.gather(flat[:, None], turned).flatten(0, 1)
        return _Queries(x, torch.from_numpy(counts), flat + turned * len(self._x), taken)

    def _unlabelled(
        self, split: str, index: int, ids: Rows, taken: Sequence[Rows], within: Rows
    ) -> tuple[Tensor | None, Rows]:
        """Return an episode's examples without labels [n, *inputs] and their ids [n]; None where it has none."""
        protocol = self.protocols[split]
        if not protocol.unlabelled:
            return None, np.empty(0, dtype=np.int64)
        generator = unlabelled_generator(self.seed, split, index)
        rows, turns = draw_unlabelled(self.table, ids, taken, within, protocol, generator)
        return self.gather(rows[:, None], turns).flatten(0, 1), rows + turns * len(self._x)

    def looking_up(self, lookup: Lookup) -> Self:
        """Return the source whose episodes have what is looked up in place of their examples."""
        other = copy(self)
        other._lookup = lookup
        return other

    def examples(self, split: str) -> tuple[Rows, Rows]:
        """Return the row and the quarter turns of every example of a split, class by class, each [examples]."""
        classes = range(*self.table.ends[split])
        rows = [self.table.starts[one] + np.arange(self.table.counts[one]) for one in classes]
        turns = self.table.turns[classes.start : classes.stop].repeat(self.table.counts[classes.start : classes.stop])
        return np.concatenate([np.empty(0, dtype=np.int64), *rows]), turns

    @property
    def stored(self) -> Rows:
        """The stored examples, as they are in the file."""
        return self._x

    def gather(self, rows: Rows, turns: Rows) -> Tensor:
        """Return float32 [ways, shots + queries, *inputs], each way turned as its class says."""
        if self._lookup is not None:
            return self._lookup(rows, turns)
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
