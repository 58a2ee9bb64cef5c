"""scikit-learn's 1,797 real handwritten digits, 8x8: a real task that trains in seconds."""

from pathlib import Path
from typing import Self

import numpy as np

from metaloom.search_spaces.sections.tasks import DigitTasks
from metaloom.workers.data.base import SOURCES, check_at_least
from metaloom.workers.data.single_task import SingleTaskSource, divide
from metaloom.workers.data.store import Arrays, cached

BRIGHTEST = 16.0  # the data set's own scale


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
