"""scikit-learn's 1,797 real handwritten digits, 8x8: a real task that trains in seconds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from metaloom.search_spaces.sections.tasks import Batch, Fraction, Imbalance, NoiseOver, TaskSettings, TrainOn
from metaloom.workers.data.base import SOURCES, check_at_least
from metaloom.workers.data.single_task import SingleTaskSource, divide
from metaloom.workers.data.store import Arrays, cached

BRIGHTEST = 16.0  # the data set's own scale


@dataclass(frozen=True)
class DigitTasks(TaskSettings):
    """scikit-learn's handwritten digits as one task, for single-task meta-learning.

    Attributes:
        batch: Training samples in an episode's support set.
        meta_batch: Clean samples in the query set of a meta-training episode.
        queries: Samples in the query set of an evaluation episode. The episodes share the held-out samples out, so
            that fewer samples make more episodes, and a surer interval.
        label_noise: Fraction of training labels replaced by a uniformly drawn one.
        noise_over: What it is drawn from: the ``others``, so that every replaced label is wrong, or ``all`` classes,
            the right one among them, as "uniform noise" is in Zhang et al. 2017 and Shu et al. 2019: 36% wrong at 0.4.
        imbalance: Size of the largest class over that of the smallest, in the training set.
        meta_size: Clean samples held out for meta-training.
        train_on: The (noisy) training set, the clean meta set alone, or both together: the controls that
            meta-learning must beat.
        validation_size: Samples held out for meta-validation.
        test_size: Samples held out for the test.
        flat: 64 features instead of an image.
    """

    batch: Batch = 100
    meta_batch: Batch = 50
    queries: Batch = 10
    label_noise: Fraction = 0.0
    noise_over: NoiseOver = "others"
    imbalance: Imbalance = 1.0
    meta_size: Batch = 50
    train_on: TrainOn = "train"
    validation_size: Batch = 200
    test_size: Batch = 500
    flat: bool = True


@SOURCES.register("digits")
class Digits(SingleTaskSource):
    """Ten classes; features are scaled to [0, 1]."""

    name = "digits"
    packages = ("scikit-learn",)
    Config = DigitTasks

    @classmethod
    def open(cls, config: DigitTasks, *, seed: int, cache: Path) -> Self:
        """Map the digits; copy them out of scikit-learn first if they are not there."""
        check_at_least(
            cls.name,
            1,
            meta_size=config.meta_size,
            validation_size=config.validation_size,
            test_size=config.test_size,
        )
        arrays = cached(cache, cls.name, {"source": cls.name}, _load)
        sizes = {"test": config.test_size, "meta": config.meta_size, "validation": config.validation_size}
        parts = divide(len(arrays["x"]), sizes, cls.name)
        inputs = (64,) if config.flat else (1, 8, 8)
        return cls(arrays["x"], arrays["y"], parts, config, seed=seed, scale=BRIGHTEST, inputs=inputs)


def _load() -> Arrays:
    from sklearn.datasets import load_digits  # a second of import that an existing cache saves

    digits = load_digits()
    return Arrays({"x": digits.images.astype(np.uint8), "y": digits.target.astype(np.int64)}, {})
