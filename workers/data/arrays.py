"""Arrays of the user's own: given from Python, in a file of numpy, or images of a saved data set of Hugging Face."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError, unknown
from metaloom.learners.task_kinds import CLASSIFICATION, TASK_KINDS
from metaloom.search_spaces.sections.few_shot import FewShotSettings, ShotsOrRange, WaysOrRange
from metaloom.search_spaces.sections.tasks import Fraction, Queries, Split, TaskSettings, UserTaskSettings
from metaloom.workers.data import given, sampler, splits
from metaloom.workers.data.base import ONE_TASK_SOURCES, SOURCES, DataError
from metaloom.workers.data.sampler import Rows
from metaloom.workers.data.store import Arrays, cached
from metaloom.workers.data.table_features import standardized
from metaloom.workers.data.user_single_task import OF_EPISODES, PARTS, UserTask, digest_with, divide_examples, stored

BRIGHTEST = 255.0


@dataclass(frozen=True)
class ArraySettings(TaskSettings):
    """Where arrays are.

    Attributes:
        path: A file of numpy (``.npz``) with the arrays ``x`` and ``y``, and ``split`` if it has one; or a data set
            with images that Hugging Face's ``save_to_disk`` has written. From Python ``tasks=`` writes it.
        standardize: Scale features, and targets that are numbers, to mean 0 and deviation 1, by the training examples.
            Images stay as they are.
        size: Images of a saved data set are resized to size x size.
        color: Three channels instead of one, of a saved data set's images.
    """

    path: str
    standardize: bool = True
    size: given.Side = 28
    color: bool = False


@dataclass(frozen=True)
class ArraysTasks(FewShotSettings, ArraySettings):
    """Arrays of the user's own as few-shot classes.

    Attributes:
        validation_fraction: Fraction of the classes for meta-validation.
        test_fraction: Fraction of the classes for the test.
    """

    ways: WaysOrRange = 5
    shots: ShotsOrRange = 1
    queries: Queries = 15
    validation_fraction: Fraction = 0.2
    test_fraction: Fraction = 0.2
    split: Split = None


@dataclass(frozen=True)
class ArraysAsOneTask(UserTaskSettings, ArraySettings):
    """Arrays of the user's own as one labelled data set: classification, or regression.

    Attributes:
        kind: The kind of task: classification of classes, or regression (or another kind without classes).
        flat: Rows of pixels instead of images.
    """

    kind: str = CLASSIFICATION.name
    flat: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        labelled = [name for name, kind in TASK_KINDS.items() if kind.labelled and not kind.in_order]
        if self.kind not in labelled:
            raise LearnerError(f"tasks.kind: {unknown('kind of task with labels', self.kind, labelled)}")


@SOURCES.register("arrays")
class FewShotArrays(sampler.FewShotSource):
    """Few-shot classification of the classes of arrays."""

    name = "arrays"
    Config = ArraysTasks

    @classmethod
    def brightest_of(cls, shape: TaskShape, settings: Mapping[str, Any]) -> float:
        """Return 255 for images, which are given as bytes or in [0, 1], and 0 for features."""
        is_image = len(shape.inputs) == 3 or (settings.get("flat") and not shape.mean)
        return BRIGHTEST if is_image else 0.0

    @classmethod
    def open(cls, config: ArraysTasks, *, seed: int, cache: Path) -> Self:
        """Map the arrays; put them into the order of the classes first if they or the settings have changed."""
        whole = _whole(config, CLASSIFICATION.name, cache)
        lists, notes = _splits(whole.about["classes"], config)
        key = {"source": cls.name, "of": whole.digest, "settings": [config.standardize, lists]}
        arrays = cached(cache, "arrays", key, lambda: _by_class(whole, config, lists))
        about, x = arrays.about, arrays["x"]
        table = sampler.ClassTable.from_splits(lists, about["spans"], by_fraction=config.split is None)
        source = cls(arrays, table, config, seed=seed, scale=_scale(x), inputs=x.shape[1:])
        source.shape = _scaled(source.shape, about["scaling"])
        source.notes = (*source.notes, *notes, *whole.about["notes"])
        source.digest = splits.digest_of(source.digest, lists)
        return source


@ONE_TASK_SOURCES.register("arrays")
class ArraysTask(UserTask):
    """Batches of arrays."""

    name = "arrays"
    Config = ArraysAsOneTask

    @classmethod
    def open(cls, config: ArraysAsOneTask, *, seed: int, cache: Path) -> Self:
        """Map the arrays, and divide them; standardize them first if they or the settings have changed."""
        whole = _whole(config, config.kind, cache)
        unused = {*OF_EPISODES, "flat", "size", "color"}
        settings = {name: value for name, value in asdict(config).items() if name not in unused}
        if whole["x"].ndim == 2 or "classes" not in whole.about:
            key = {"source": "arrays_task", "of": whole.digest, "settings": settings}
            arrays = cached(cache, "arrays_task", key, lambda: _divided(whole, config))
        else:  # images are not scaled, so that no second copy of them is made
            arrays = _divided(whole, config)
        shape = arrays["x"].shape[1:]
        inputs = (int(np.prod(shape)),) if config.flat else shape
        source = cls(arrays, config, seed=seed, scale=_scale(arrays["x"]), inputs=inputs)
        source.shape = _scaled(source.shape, arrays.about["scaling"])
        source.notes = (*source.notes, *whole.about["notes"])
        return source


def _whole(config: ArraySettings, kind: str, cache: Path) -> Arrays:
    whole = given.find(config.path, cache, size=config.size, color=config.color, kind=kind)
    if TASK_KINDS[kind].has_classes != ("classes" in whole.about):
        held = "classes" if "classes" in whole.about else "numbers"
        raise DataError(f"tasks.kind: y was given as {held}, and {kind} needs others; give the data again")
    return whole


def _scale(x: NDArray[Any]) -> float:
    return BRIGHTEST if x.dtype == np.uint8 else 1.0


def _scaled(shape: TaskShape, scaling: Mapping[str, Any]) -> TaskShape:
    mean, deviation = (tuple(scaling.get(name, ())) for name in ("mean", "deviation"))
    return replace(shape, mean=mean, deviation=deviation)


def _features(whole: Arrays, train: Rows, config: ArraySettings) -> tuple[NDArray[Any], dict[str, list[float]]]:
    """Return rows of features standardized, images as they are, and what they were scaled by."""
    x = whole["x"]
    if x.ndim > 2:
        return x, {}
    return standardized(x, train) if config.standardize else (x.astype(np.float32), {})


def _splits(classes: list[str], config: ArraysTasks) -> tuple[splits.Lists, tuple[str, ...]]:
    """Return the classes of each split, and notes about classes that are left out."""
    if config.split is not None:
        return splits.chosen(splits.class_lists(config.split), classes, config.path)
    return sampler.split_classes(classes, config.validation_fraction, config.test_fraction), ()


def _by_class(whole: Arrays, config: ArraysTasks, lists: splits.Lists) -> Arrays:
    """Put the examples into the order of their classes; scale features by the meta-train ones."""
    classes, y = whole.about["classes"], whole["y"]
    order = np.argsort(y, kind="stable")
    spans = sampler.spans_of(dict(zip(classes, np.bincount(y, minlength=len(classes)).tolist(), strict=True)))
    train = np.flatnonzero(np.isin(y, [classes.index(name) for name in lists["train"]]))
    x, scaling = _features(whole, train, config)
    return Arrays({"x": x[order]}, {"spans": spans, "scaling": scaling})


def _divided(whole: Arrays, config: ArraysAsOneTask) -> Arrays:
    """Divide the examples, by class or as they say themselves; scale features and targets by the training ones."""
    names = [PARTS[part] for part in whole["part"].tolist()] if "part" in whole.columns else None
    about: dict[str, Any] = {name: whole.about[name] for name in ("classes",) if name in whole.about}
    y = whole["y"]
    parts = divide_examples(y if about else np.zeros(len(y), dtype=np.int64), config, names)
    if not about and config.standardize:
        y, about["target_scaling"] = standardized(y, parts["train"])
    x, about["scaling"] = _features(whole, parts["train"], config)
    arrays = stored({"x": x, "y": y}, parts, about)
    return replace(arrays, digest=digest_with(whole.digest, parts))
