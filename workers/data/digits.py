"""scikit-learn's 1,797 real handwritten digits, 8x8: a real task that trains in seconds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from metaloom.search_spaces.sections.tasks import Batch
from metaloom.workers.data.base import SOURCES
from metaloom.workers.data.single_task import SingleTaskSettings, SingleTaskSource, divide
from metaloom.workers.data.store import Arrays, cached


@dataclass(frozen=True)
class DigitTasks(SingleTaskSettings):
    """scikit-learn's handwritten digits as one task, for single-task meta-learning.

    Attributes:
        test_size: Samples held out for the test.
        flat: 64 features instead of an image.
    """

    test_size: Batch = 500
    flat: bool = True


@SOURCES.register("digits")
class Digits(SingleTaskSource):
    """Ten classes; features are scaled to [0, 1]."""

    name = "digits"
    brightest = 16.0  # the data set's own scale
    packages = ("scikit-learn",)
    Config = DigitTasks

    @classmethod
    def open(cls, config: DigitTasks, *, seed: int, cache: Path) -> Self:
        """Map the digits; copy them out of scikit-learn first if they are not there."""
        arrays = cached(cache, cls.name, {"source": cls.name}, _load)
        sizes = {"test": config.test_size, "meta": config.meta_size, "validation": config.validation_size}
        parts = divide(len(arrays["x"]), sizes, cls.name)
        inputs = (64,) if config.flat else (1, 8, 8)
        return cls(arrays["x"], arrays["y"], parts, config, seed=seed, scale=cls.brightest, inputs=inputs)


def _load() -> Arrays:
    from sklearn.datasets import load_digits  # a second of import that an existing cache saves

    digits = load_digits()
    return Arrays({"x": digits.images.astype(np.uint8), "y": digits.target.astype(np.int64)}, {})
