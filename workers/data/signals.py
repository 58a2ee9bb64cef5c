"""Series that are generated: data sets of several families, so that one can learn over data sets without any file.

A data set is a family and a number, such as ``chirps-3``. Both determine its classes: each class has parameters of its
own, drawn once, and an example is a series of these parameters with a random phase or shift, a random stretch in time,
and noise, scaled to mean 0 and deviation 1. With t in [0, 1), shifted and stretched for each example, the families are

    harmonics    sin(2 pi f t) + a sin(2 pi r f t)          f, r, a of the class
    chirps       sin(2 pi (f t + k t^2))                    f, k
    bumps        sum_j s_j exp(-((t - m_j) / w_j)^2 / 2)    three heights s, places m, widths w
    pulses       tanh(6 sin(2 pi f t) - 6 d)                f, d (how long a pulse lasts)
    ramps        piecewise linear between 6 heights         the heights
    echoes       sum_j a_j exp(-5 (t - m_j)) cos(2 pi f (t - m_j)) after m_j    three a, m, and f
    walks        y_i = a y_(i-1) + b y_(i-2) + noise        the poles' angle and radius
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray

from metaloom.learners.domains import Bounds, Int, Real
from metaloom.learners.errors import LearnerError, shown, unknown
from metaloom.search_spaces.sections.few_shot import FewShotSettings, ShotsOrRange, WaysOrRange
from metaloom.search_spaces.sections.tasks import Fraction, Queries
from metaloom.workers.data import sampler
from metaloom.workers.data.base import SOURCES
from metaloom.workers.data.store import Arrays, cached

VERSION = 1  # of the series: raise it whenever they change
LATE = 0.06  # deviation of an example's shift in time
STRETCH = 0.06  # likewise, of the logarithm of its stretch
Values = NDArray[np.float64]
Family = Callable[[Generator, Values, Generator], Values]  # of a class, times [n, length], of the examples: [n, length]


def harmonics(of_class: Generator, t: Values, each: Generator) -> Values:
    """Return two waves, the second a multiple of the first."""
    frequency, ratio, height = of_class.uniform(1.5, 5.0), of_class.uniform(1.5, 3.0), of_class.uniform(0.2, 1.0)
    angle = 2 * np.pi * frequency * (t + each.random((len(t), 1)))
    return np.asarray(np.sin(angle) + height * np.sin(ratio * angle))


def chirps(of_class: Generator, t: Values, each: Generator) -> Values:
    """Return waves whose frequency rises or falls."""
    frequency, slope = of_class.uniform(1.0, 5.0), of_class.uniform(-4.0, 6.0)
    return np.asarray(np.sin(2 * np.pi * (frequency * t + slope * t**2 + each.random((len(t), 1)))))


def bumps(of_class: Generator, t: Values, each: Generator) -> Values:
    """Return three bumps."""
    heights, places, widths = of_class.normal(size=3), of_class.uniform(0.1, 0.9, 3), of_class.uniform(0.03, 0.12, 3)
    return np.asarray((heights * np.exp(-(((t[..., None] - places) / widths) ** 2) / 2)).sum(-1))


def pulses(of_class: Generator, t: Values, each: Generator) -> Values:
    """Return nearly square waves."""
    frequency, level = of_class.uniform(1.0, 5.0), of_class.uniform(-0.8, 0.8)
    return np.asarray(np.tanh(6 * (np.sin(2 * np.pi * frequency * (t + each.random((len(t), 1)))) - level)))


def ramps(of_class: Generator, t: Values, each: Generator) -> Values:
    """Return straight lines between heights."""
    heights = of_class.normal(size=6)
    return np.interp(t, np.linspace(0, 1, len(heights)), heights)


def echoes(of_class: Generator, t: Values, each: Generator) -> Values:
    """Return oscillations that begin one after another and die away."""
    frequency, starts, heights = of_class.uniform(3, 9), np.sort(of_class.uniform(0, 0.8, 3)), of_class.normal(size=3)
    since = t[..., None] - starts
    decay = np.where(since > 0, np.exp(-5 * np.maximum(since, 0)), 0)
    return np.asarray((heights * decay * np.cos(2 * np.pi * frequency * since)).sum(-1))


def walks(of_class: Generator, t: Values, each: Generator) -> Values:
    """Return autoregressive series of order two."""
    angle, radius = of_class.uniform(0.2, 2.5), of_class.uniform(0.8, 0.97)
    noise, found = each.standard_normal((len(t), t.shape[1] + 30)), np.zeros((len(t), t.shape[1] + 30))
    for i in range(2, found.shape[1]):
        found[:, i] = 2 * radius * np.cos(angle) * found[:, i - 1] - radius**2 * found[:, i - 2] + noise[:, i]
    return found[:, 30:]  # the first ones remember the start


FAMILIES: dict[str, Family] = {one.__name__: one for one in (harmonics, chirps, bumps, pulses, ramps, echoes, walks)}


@dataclass(frozen=True)
class SignalTasks(FewShotSettings):
    """Generated series of a family, as one of many data sets.

    Attributes:
        set: The family (harmonics, chirps, bumps, pulses, ramps, echoes or walks) and a number, such as `chirps-3`.
            Each number is another data set of the family.
        classes: Classes of the data set.
        examples: Series of each class.
        length: Steps of a series.
        noise: Standard deviation of the noise, relative to that of the series.
        validation_fraction: Fraction of the classes for meta-validation.
        test_fraction: Fraction of the classes for the test.
    """

    set: str = "harmonics-0"
    classes: Annotated[int, Int(2, 100), Bounds(at_least=2)] = 6
    examples: Annotated[int, Int(2, 1000), Bounds(at_least=2)] = 20
    length: Annotated[int, Int(16, 512), Bounds(at_least=8, at_most=10_000)] = 48
    noise: Annotated[float, Real(0.0, 2.0, per=())] = 0.3
    validation_fraction: Fraction = 0.3
    test_fraction: Fraction = 0.3
    ways: WaysOrRange = 2
    shots: ShotsOrRange = 1
    queries: Queries = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        family, _, number = self.set.rpartition("-")
        if family not in FAMILIES or not number.isdecimal():
            known = not FAMILIES.keys().isdisjoint({family, self.set})
            told = f"got {shown(self.set)}" if known else unknown("family of series", family or self.set, FAMILIES)
            raise LearnerError(f"tasks.set: {told}; give a family and a number, such as chirps-3")


@SOURCES.register("signals")
class Signals(sampler.FewShotSource):
    """Classes of generated series, [1, length]."""

    name = "signals"
    Config = SignalTasks

    @classmethod
    def open(cls, config: SignalTasks, *, seed: int, cache: Path) -> Self:
        """Map the series; generate them first if they are not there."""
        sizes = [config.classes, config.examples, config.length, config.noise]
        key = {"source": cls.name, "version": VERSION, "set": config.set, "sizes": sizes}
        arrays = cached(cache, cls.name, key, lambda: Arrays({"x": series_of(config)}, {}))
        spans = sampler.spans_of({f"class {number}": config.examples for number in range(config.classes)})
        table = sampler.ClassTable.divided(spans, config.validation_fraction, config.test_fraction)
        return cls(arrays, table, config, seed=seed, scale=1.0, inputs=(1, config.length))


def series_of(config: SignalTasks) -> NDArray[np.float32]:
    """Return all series of a data set, class by class: float32 [classes * examples, 1, length]."""
    family, _, number = config.set.rpartition("-")
    made = []
    for place in range(config.classes):
        words = np.array([zlib.crc32(family.encode()) << 32 | int(number) % 2**32, place], dtype=np.uint64)
        of_class, each = (Generator(Philox(key=words, counter=np.array([0, 0, 0, i], dtype=np.uint64))) for i in (0, 1))
        late, stretch = each.normal(0, LATE, (config.examples, 1)), each.normal(0, STRETCH, (config.examples, 1))
        t = np.linspace(0, 1, config.length, endpoint=False) * np.exp(stretch) + late
        values = _standard(FAMILIES[family](of_class, t, each))
        made.append(_standard(values + config.noise * each.standard_normal(values.shape)))
    return np.concatenate(made).astype(np.float32)[:, None]


def _standard(values: Values) -> Values:
    """Return series [n, length] of mean 0 and deviation 1."""
    return np.asarray((values - values.mean(1, keepdims=True)) / np.maximum(values.std(1, keepdims=True), 1e-8))
