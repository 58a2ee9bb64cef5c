"""The data sets of the UCR archive, and others of its format: few-shot episodes of their classes, or one task.

Dau et al., 2018, https://arxiv.org/abs/1810.07758. ``series_arrays`` has the rules for lengths and missing values.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

from metaloom.learners.errors import LearnerError
from metaloom.search_spaces.sections.few_shot import FewShotSettings, ShotsOrRange, WaysOrRange
from metaloom.search_spaces.sections.tasks import Fraction, Queries, Split, TaskSettings, UserTaskSettings
from metaloom.workers.data import sampler, splits
from metaloom.workers.data.base import ONE_TASK_SOURCES, SOURCES, DataError, some
from metaloom.workers.data.enough import LEAVE_OUT, protocols_of
from metaloom.workers.data.series_arrays import as_arrays
from metaloom.workers.data.series_sets import Archive
from metaloom.workers.data.store import Arrays, cached
from metaloom.workers.data.user_single_task import UserTask, digest_with, divide_examples, stored

SEPARATOR = "/"  # between a data set's name and a label, where there are several sets


@dataclass(frozen=True)
class SeriesSettings(TaskSettings):
    """Where series are, and how they are read.

    Attributes:
        path: A folder of data sets (``NAME/NAME_TRAIN.ts`` and ``NAME_TEST.ts``, or ``.tsv``), or an ``.npz`` file with
            ``NAME/X_train``, ``NAME/y_train``, ``NAME/X_test`` and ``NAME/y_test``; null is what aeon ships.
        set: The name of a data set.
        normalize: `as_given` uses values as they are, since most sets are z-scored already; `z_score` takes the mean
            from each channel of a series and divides it by its deviation (divisor steps - 1).
        level: Two more channels for each one: the level of a series (arsinh of its mean) and its deviation (its
            logarithm) before it was z-scored, the same at every step.
    """

    path: str | None = None
    set: str | None = None
    normalize: Literal["as_given", "z_score"] = "as_given"
    level: bool = False


@dataclass(frozen=True)
class UcrTasks(FewShotSettings, SeriesSettings):
    """Few-shot episodes of the classes of one data set, or of several, each episode within one of them.

    Attributes:
        sets: The names of several data sets. Whole sets are divided among training, validation and test.
        validation_fraction: Fraction of the classes, or of the sets, for meta-validation.
        test_fraction: Fraction of the classes, or of the sets, for the test.
        split: Which classes, or which sets, are in ``train``, ``validation`` and ``test``: a list for each, or the path
            of a JSON or CSV file of such lists; null divides them by the fractions.
    """

    sets: tuple[str, ...] | None = None
    ways: WaysOrRange = 5
    shots: ShotsOrRange = 1
    queries: Queries = 5
    validation_fraction: Fraction = 0.2
    test_fraction: Fraction = 0.2
    split: Split = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.set is None) == (self.sets is None):
            raise LearnerError("tasks.set: give the name of one data set, or tasks.sets: [NAME, NAME], not both")
        if self.sets is not None and len(set(self.sets)) < max(len(self.sets), 1):
            raise LearnerError(f"tasks.sets: got {list(self.sets)}; give at least one name, each once")


@dataclass(frozen=True)
class UcrAsOneTask(UserTaskSettings, SeriesSettings):
    """One data set as one task, with the archive's own test set.

    Attributes:
        set: The name of a data set.
        test_fraction: Not used: the test set is the archive's.
        meta_fraction: Fraction of the archive's training series for the clean meta set.
        validation_fraction: Fraction of the archive's training series for the validation.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.set is None:
            raise LearnerError("tasks.set: give the name of the data set")
        if self.test_fraction != type(self).test_fraction:
            raise LearnerError("tasks.test_fraction: the archive's own test set is the test set; remove it")


@SOURCES.register("ucr")
class Ucr(sampler.FewShotSource):
    """Few-shot classification of series; a class is its label, after its set's name where there are several sets."""

    name = "ucr"
    Config = UcrTasks

    @classmethod
    def open(cls, config: UcrTasks, *, seed: int, cache: Path) -> Self:
        """Map the series; read the archive's files first if they or the settings have changed."""
        names = config.sets or (config.set or "",)
        arrays = _read(config, names, cache)
        sizes = {one: dict(zip(labels, arrays.about["sizes"][one], strict=True)) for one, labels in _classes(arrays)}
        several = config.sets is not None
        spans = sampler.spans_of(
            {
                f"{one}{SEPARATOR}{label}" if several else label: size
                for one in sizes
                for label, size in sizes[one].items()
            }
        )
        groups = {name: name.rpartition(SEPARATOR)[0] for name in spans} if several else None
        lists, notes = _divided(config, list(spans), groups)
        if several:
            _check_ways(config, lists)
        by_fraction = config.split is None and not several
        table = sampler.ClassTable.from_splits(lists, spans, groups, by_fraction=by_fraction)
        source = cls(arrays, table, config, seed=seed, scale=1.0, inputs=arrays["x"].shape[1:])
        source.shape = replace(source.shape, observed=bool(arrays.about["observed"]), groups=_groups(source.table))
        source.notes = (*source.notes, *notes, *arrays.about["notes"])
        source.digest = splits.digest_of(source.digest, lists)
        return source


@ONE_TASK_SOURCES.register("ucr")
class UcrTask(UserTask):
    """Batches of the archive's training series; its own test series are the test."""

    name = "ucr"
    Config = UcrAsOneTask

    @classmethod
    def open(cls, config: UcrAsOneTask, *, seed: int, cache: Path) -> Self:
        """Map the series, and divide the archive's training set; read its files first if they have changed."""
        arrays = _read(config, (config.set or "",), cache)
        classes = arrays.about["classes"][config.set]
        parts = divide_examples(arrays["y"], config, ["test" if one else "train" for one in arrays["tested"].tolist()])
        held = stored({"x": arrays["x"], "y": arrays["y"]}, parts, {"classes": classes})
        held = replace(held, digest=digest_with(arrays.digest, parts))
        source = cls(held, config, seed=seed, scale=1.0, inputs=arrays["x"].shape[1:])
        source.shape = replace(source.shape, observed=bool(arrays.about["observed"]))
        source.notes = (*source.notes, *arrays.about["notes"])
        return source


def _read(config: SeriesSettings, names: Sequence[str], cache: Path) -> Arrays:
    archive = Archive.at(config.path)
    key = {"source": "ucr", "sets": list(names), "settings": [config.normalize, config.level]}
    key["files"] = archive.facts(names)

    def load() -> Arrays:
        return as_arrays([archive.read(name) for name in names], config.normalize, config.level)

    return cached(cache, "ucr", key, load)


def _groups(table: sampler.ClassTable) -> tuple[int, ...]:
    """Return how many training classes each data set has, in the order of the classes; empty for one set."""
    return tuple(len(places) for places in table.members("train").values()) if table.groups else ()


def _classes(arrays: Arrays) -> list[tuple[str, list[str]]]:
    return list(arrays.about["classes"].items())


def _divided(
    config: UcrTasks, classes: list[str], groups: dict[str, str] | None
) -> tuple[splits.Lists, tuple[str, ...]]:
    """Return the classes of each split, and notes about those that are left out."""
    where = config.path or "aeon"
    if config.split is not None:
        lists = splits.class_lists(config.split)
        if groups is None:
            return splits.chosen(lists, classes, where)
        found, notes = splits.chosen(lists, sorted(set(groups.values())), where)
        return {split: [one for one in classes if groups[one] in set(found[split])] for split in found}, notes
    fractions = config.validation_fraction, config.test_fraction
    if groups is not None:
        return sampler.split_groups(groups, *fractions), ()
    return sampler.split_classes(classes, *fractions), ()


def _check_ways(config: UcrTasks, lists: splits.Lists) -> None:
    """Refuse more ways than a data set has classes, where such sets are not left out; raises DataError."""
    if config.on_too_few == LEAVE_OUT:
        return
    for split, protocol in protocols_of(config).items():
        of_set = [one.rpartition(SEPARATOR)[0] for one in lists[split]]
        small = sorted({one for one in of_set if of_set.count(one) < protocol.classes})
        if small:
            least = min(of_set.count(one) for one in small)
            raise DataError(
                f"tasks.ways: an episode has {protocol.classes} classes of one data set, and {some(small)} ({split}) "
                f"has fewer, at least {least}: lower tasks.ways to {least}, or set tasks.on_too_few: leave_out"
            )
