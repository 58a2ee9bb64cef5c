"""One task for single-task meta-learning: noisy training batches in, clean meta batches to judge by.

A meta-training episode pairs a batch of the training set (support) with a batch of
the small clean meta set (query): what Meta-Weight-Net, distillation and DARTS learn
from. The held-out splits are partitioned into episodes, so that together they score
each sample once; their support is one fixed training batch.

How samples are shared out, and which labels are noisy, depends on the data and the
settings alone, never on the seed of the episodes: no seed can leak the test set.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.workers.data.base import (
    DataError,
    SampledEpisode,
    Source,
    SourceSummary,
    SplitSummary,
    check_at_least,
    check_fraction,
    check_split,
)
from metaloom.workers.data.sampler import (
    DIVISION,
    IMBALANCE,
    NOISE,
    Rows,
    draw_seed,
    episode_generator,
    fixed_generator,
    to_inputs,
)


class SingleTaskConfig(Protocol):
    """The settings that single-task sources share."""

    @property
    def batch(self) -> int: ...
    @property
    def meta_batch(self) -> int: ...
    @property
    def queries(self) -> int: ...
    @property
    def label_noise(self) -> float: ...
    @property
    def noise_over(self) -> str: ...
    @property
    def imbalance(self) -> float: ...
    @property
    def train_on(self) -> str: ...
    @property
    def meta_size(self) -> int: ...
    @property
    def validation_size(self) -> int: ...


def divide(samples: int, sizes: Mapping[str, int], source: str) -> dict[str, Rows]:
    """Share rows out at random: each part its size, ``train`` the rest.

    Raises:
        DataError: Nothing is left to train on.
    """
    asked = sum(sizes.values())
    if asked >= samples:
        wanted = ", ".join(f"{part} {size}" for part, size in sizes.items())
        raise DataError(
            f"tasks.{', tasks.'.join(f'{part}_size' for part in sizes)}: {wanted} are {asked} samples, and {source} "
            f"has {samples}: none is left to train on"
        )
    order = fixed_generator(0, DIVISION).permutation(samples)
    parts = {}
    for part, size in sizes.items():
        parts[part], order = order[:size], order[size:]
    return {**parts, "train": order}


def add_label_noise(labels: Rows, fraction: float, classes: int, over: str = "others") -> Rows:
    """Replace each label, with this probability, by one of the ``over`` classes, all equally likely.

    Args:
        labels: [samples].
        fraction: The probability.
        classes: How many there are.
        over: ``others`` (Ren et al. 2018, https://arxiv.org/abs/1803.09050, section 4.2) or ``all``, the right
            one among them, so that fraction * (1 - 1 / classes) of the labels are wrong (Zhang et al. 2017,
            https://arxiv.org/abs/1611.03530, section 2.1; Shu et al. 2019, https://arxiv.org/abs/1902.07379,
            section 4.2).
    """
    generator = fixed_generator(0, NOISE)
    replaced = generator.random(len(labels)) < fraction
    drawn = (labels + generator.integers(int(over == "others"), classes, len(labels))) % classes
    return np.where(replaced, drawn, labels)


def long_tail(labels: Rows, factor: float, classes: int) -> Rows:
    """Return the rows to keep so that class sizes fall geometrically to 1/factor of the first.

    The smallest class of ``labels`` bounds the largest that is kept, so no class is
    limited by its own size (Cui et al. 2019, https://arxiv.org/abs/1901.05555, section 4.1).
    """
    if factor == 1.0:
        return np.arange(len(labels))
    order = fixed_generator(0, IMBALANCE).permutation(len(labels))
    largest = int(np.bincount(labels, minlength=classes).min())
    kept = []
    for label in range(classes):
        size = max(1, round(largest * factor ** (-label / (classes - 1))))
        kept.append(order[labels[order] == label][:size])
    return np.sort(np.concatenate(kept))


class SingleTaskSource(Source):
    """Batches of one classification task.

    Args:
        x: Stored examples [samples, ...]; memory-mapped.
        y: True labels [samples].
        parts: Rows of ``train``, ``meta``, ``validation`` and ``test``.
        scale: What divides stored values.
        inputs: Shape of one example as the learner sees it.

    Attributes:
        labels: Labels as given to the learner: noisy in the training set, true elsewhere. [samples]
        noisy: Whether a sample's label is wrong, by sample id. [samples]
        parts: The rows of each part, after the long tail has thinned ``train``; ``both`` is train and meta.
    """

    def __init__(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        parts: Mapping[str, Rows],
        config: SingleTaskConfig,
        *,
        seed: int,
        scale: float,
        inputs: tuple[int, ...],
    ) -> None:
        self.config, self.seed, self.scale = config, seed, scale
        self._x = x
        check_fraction(self.name, label_noise=config.label_noise)
        check_at_least(self.name, 1, imbalance=config.imbalance, batch=config.batch)
        check_at_least(self.name, 1, meta_batch=config.meta_batch, queries=config.queries)
        true = np.asarray(y, dtype=np.int64)
        classes = int(true.max()) + 1
        train = parts["train"]
        train = train[long_tail(true[train], config.imbalance, classes)]
        self.parts = {**parts, "train": train, "both": np.concatenate([train, parts["meta"]])}
        self.labels = true.copy()
        self.labels[train] = add_label_noise(true[train], config.label_noise, classes, config.noise_over)
        self.noisy = self.labels != true
        trained_on = self.parts[config.train_on]
        counts = np.bincount(self.labels[trained_on], minlength=classes).tolist()
        self.shape = TaskShape(
            "classification", inputs, classes, classes=classes, single_task=True, counts=tuple(counts)
        )
        self._sample_ids = np.full(len(true), -1)
        self._sample_ids[trained_on] = np.arange(len(trained_on))
        self._check()

    def episode(self, split: str, index: int) -> SampledEpisode:
        """Draw batches (train), or take the next part of a held-out split and the fixed batch."""
        check_split(split, index, self.available(split))
        generator = episode_generator(self.seed, split, index)
        if split == "train":
            support = self._draw(self.config.train_on, self.config.batch, generator)
            query = self._draw("meta", self.config.meta_batch, generator)
        else:
            support = self._draw(self.config.train_on, self.config.batch, episode_generator(self.seed, split, 0))
            first = index * self.config.queries
            query = self.parts[split][first : first + self.config.queries]
        classes = self.shape.classes
        sample_ids = torch.from_numpy(self._sample_ids[support])
        episode = Episode(Support(*self.examples(support)), *self.examples(query), torch.arange(classes), sample_ids)
        samples = (*support.tolist(), *query.tolist())
        return SampledEpisode(episode, draw_seed(generator), tuple(range(classes)), samples)

    def available(self, split: str) -> int | None:
        """Training batches have no end; a held-out split has as many episodes as it fills."""
        check_split(split, 0)
        return None if split == "train" else len(self.parts[split]) // self.config.queries

    def examples(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Return inputs, float32 [rows, *inputs], and labels as given, int64 [rows]."""
        x = to_inputs(self._x[rows], self.scale).view(len(rows), *self.shape.inputs)
        return x, torch.from_numpy(self.labels[rows])

    def summary(self) -> SourceSummary:
        """Count the samples; say what the settings have made of them."""
        splits = {
            split: SplitSummary(self.shape.classes, len(self.parts[split]), self.available(split))
            for split in ("train", "validation", "test")
        }
        wrong = int(self.noisy.sum())
        notes = [f"{len(self.parts['meta'])} clean meta samples; {wrong} training labels are wrong"]
        for split in ("validation", "test"):
            if left := len(self.parts[split]) % self.config.queries:
                notes.append(f"{split}: the last {left} samples fill no episode of {self.config.queries} queries")
        return SourceSummary(self.name, self.shape, splits, tuple(notes))

    def _draw(self, part: str, size: int, generator: np.random.Generator) -> Rows:
        rows = self.parts[part]
        return rows[generator.choice(len(rows), size, replace=False)]

    def _check(self) -> None:
        asked = (("batch", self.config.batch, self.config.train_on), ("meta_batch", self.config.meta_batch, "meta"))
        held = tuple(("queries", self.config.queries, split) for split in ("validation", "test"))
        for field, size, part in (*asked, *held):
            if size > len(self.parts[part]):
                raise DataError(
                    f"tasks.{field}: {size} samples asked for, but the {part} set of {self.name} has "
                    f"{len(self.parts[part])}"
                )
