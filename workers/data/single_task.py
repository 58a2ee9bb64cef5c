"""The base of sources for single-task meta-learning: noisy training batches, and clean meta batches to judge by.

A meta-training episode pairs a batch of the training set (support) with a batch of the small clean meta set (query), as
Meta-Weight-Net, distillation and DARTS need them. The held-out splits are partitioned into episodes, so that together
they score each sample once; their support is one fixed training batch.

The division into parts and the noisy labels depend on the data and the settings alone, never on the seed of the
episodes: no seed can leak the test set.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.search_spaces.sections.tasks import Batch, OneTaskSettings, UserTaskSettings
from metaloom.workers.data import base, sampler
from metaloom.workers.data.base import DataError
from metaloom.workers.data.sampler import Rows


@dataclass(frozen=True)
class SingleTaskSettings(OneTaskSettings):
    """The settings that the built-in sources of a single task share.

    Attributes:
        batch: Training samples in an episode's support set.
        meta_batch: Clean samples in the query set of a meta-training episode.
        queries: Samples in the query set of an evaluation episode. The episodes share the held-out samples out, so
            that fewer samples make more episodes, and a surer interval.
        meta_size: Clean samples held out for meta-training.
        validation_size: Samples held out for meta-validation.
    """

    batch: Batch = 100
    meta_batch: Batch = 50
    queries: Batch = 10
    meta_size: Batch = 50
    validation_size: Batch = 200

    def sizes(self, parts: Mapping[str, int]) -> dict[str, int]:
        """Return the examples of a ``batch``, of a ``meta_batch`` and of an evaluation's ``queries``."""
        return {"batch": self.batch, "meta_batch": self.meta_batch, "queries": self.queries}


def divide(samples: int, sizes: Mapping[str, int], source: str) -> dict[str, Rows]:
    """Divide rows at random: each part its size, ``train`` the rest; raises DataError if ``train`` is empty."""
    asked = sum(sizes.values())
    if asked >= samples:
        wanted = ", ".join(f"{part} {size}" for part, size in sizes.items())
        raise DataError(
            f"tasks.{', tasks.'.join(f'{part}_size' for part in sizes)}: {wanted} are {asked} samples, and {source} "
            f"has {samples}: none is left to train on"
        )
    order = sampler.fixed_generator(0, sampler.DIVISION).permutation(samples)
    parts = {}
    for part, size in sizes.items():
        parts[part], order = order[:size], order[size:]
    return {**parts, "train": order}


def add_label_noise(labels: Rows, fraction: float, classes: int, over: str = "others") -> Rows:
    """Replace each label, with this probability, by one of the ``over`` classes, all equally likely.

    Args:
        labels: [samples].
        fraction: The probability.
        classes: The number of classes.
        over: ``others`` (Ren et al. 2018, https://arxiv.org/abs/1803.09050, section 4.2) or ``all``, the right
            one among them, so that fraction * (1 - 1 / classes) of the labels are wrong (Zhang et al. 2017,
            https://arxiv.org/abs/1611.03530, section 2.1; Shu et al. 2019, https://arxiv.org/abs/1902.07379,
            section 4.2).
    """
    generator = sampler.fixed_generator(0, sampler.NOISE)
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
    order = sampler.fixed_generator(0, sampler.IMBALANCE).permutation(len(labels))
    largest = int(np.bincount(labels, minlength=classes).min())
    sizes = [max(1, round(largest * factor ** (-label / (classes - 1)))) for label in range(classes)]
    return np.sort(np.concatenate([order[labels[order] == label][:size] for label, size in enumerate(sizes)]))


class SingleTaskSource(base.Source):
    """Batches of one classification task; a subclass may make it another kind of task.

    Args:
        x: Stored examples [samples, ...]; memory-mapped.
        y: True labels [samples].
        parts: Rows of ``train``, ``meta``, ``validation`` and ``test``.
        scale: Divisor of the stored values.
        inputs: Shape of one example as the learner sees it.

    Attributes:
        labels: Labels as given to the learner: noisy in the training set, true elsewhere. [samples]
        noisy: Whether a sample's label is wrong, by row. [samples]
        parts: The rows of each part, after the long tail has thinned ``train``; ``both`` is train and meta.
        sizes: Examples of a ``batch``, of a ``meta_batch`` and of an evaluation's ``queries``.
    """

    def __init__(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        parts: Mapping[str, Rows],
        config: SingleTaskSettings | UserTaskSettings,
        *,
        seed: int,
        scale: float,
        inputs: tuple[int, ...],
    ) -> None:
        self.config, self.seed, self.scale, self._x = config, seed, scale, x
        true = self._targets(y)
        train = self._thinned(true, parts["train"])
        self.parts = {**parts, "train": train, "both": np.concatenate([train, parts["meta"]])}
        self.sizes = config.sizes({name: len(rows) for name, rows in self.parts.items()})
        self.labels = true.copy()
        self.labels[train] = self._with_noise(true[train])
        self.noisy = (self.labels != true).reshape(len(true), -1).any(1)
        trained_on = self.parts[config.train_on]
        self.shape = self._shape(inputs, trained_on)
        self._sample_ids = np.full(len(true), -1)
        self._sample_ids[trained_on] = np.arange(len(trained_on))
        self._check()
        self.notes = tuple(self._notes())

    def _targets(self, y: NDArray[Any]) -> NDArray[Any]:
        """Return the true targets as a learner takes them: int64 [samples]."""
        true = np.asarray(y, dtype=np.int64)
        self._classes = int(true.max()) + 1
        return true

    def _thinned(self, true: NDArray[Any], train: Rows) -> Rows:
        """Return the training rows that are kept."""
        return train[long_tail(true[train], self.config.imbalance, self._classes)]

    def _with_noise(self, true: NDArray[Any]) -> NDArray[Any]:
        """Return the training targets as given."""
        return add_label_noise(true, self.config.label_noise, self._classes, self.config.noise_over)

    def _shape(self, inputs: tuple[int, ...], trained_on: Rows) -> TaskShape:
        classes = self._classes
        counts = tuple(np.bincount(self.labels[trained_on], minlength=classes).tolist())
        return TaskShape("classification", inputs, classes, classes=classes, single_task=True, counts=counts)

    def episode(self, split: str, index: int) -> base.SampledEpisode:
        """Draw batches (train), or take the next part of a held-out split and the fixed batch."""
        base.check_split(split, index, self.available(split))
        sizes, generator = self.sizes, sampler.episode_generator(self.seed, split, index)
        if split == "train":
            support = self._draw(self.config.train_on, sizes["batch"], generator)
            query = self._draw("meta", sizes["meta_batch"], generator)
        else:
            fixed = sampler.episode_generator(self.seed, split, 0)
            support = self._draw(self.config.train_on, sizes["batch"], fixed)
            query = self.parts[split][index * sizes["queries"] : (index + 1) * sizes["queries"]]
        classes = self.shape.classes
        sample_ids = torch.from_numpy(self._sample_ids[support])
        class_ids = torch.arange(classes) if classes else None
        episode = Episode(Support(*self.examples(support)), *self.examples(query), class_ids, sample_ids)
        rows = (*support.tolist(), *query.tolist())
        return base.SampledEpisode(episode, sampler.draw_seed(generator), tuple(range(max(classes, 1))), rows)

    def available(self, split: str) -> int | None:
        """Training batches are endless; a held-out split has as many episodes as it fills."""
        base.check_split(split, 0)
        return None if split == "train" else len(self.parts[split]) // self.sizes["queries"]

    def examples(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Return inputs, float32 [rows, *inputs], and labels as given, int64 [rows]."""
        x = sampler.to_inputs(self._x[rows], self.scale).view(len(rows), *self.shape.inputs)
        return x, torch.from_numpy(self.labels[rows])

    def _draw(self, part: str, size: int, generator: np.random.Generator) -> Rows:
        rows = self.parts[part]
        return rows[generator.choice(len(rows), size, replace=False)]

    def _notes(self) -> Iterator[str]:
        yield f"{len(self.parts['meta'])} clean meta samples; {int(self.noisy.sum())} training labels are wrong"
        yield from self._left_over()

    def _left_over(self) -> Iterator[str]:
        for split in ("validation", "test"):
            if left := len(self.parts[split]) % self.sizes["queries"]:
                yield f"{split}: the last {left} samples fill no episode of {self.sizes['queries']} queries"

    def _check(self) -> None:
        held_out = (("queries", split) for split in ("validation", "test"))
        for field, part in (("batch", self.config.train_on), ("meta_batch", "meta"), *held_out):
            if (size := self.sizes[field]) > len(self.parts[part]):
                raise DataError(
                    f"tasks.{field}: {size} samples asked for, but the {part} set of {self.name} has "
                    f"{len(self.parts[part])}"
                )
