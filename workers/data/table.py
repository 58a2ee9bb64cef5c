"""The user's own table: few-shot classes, or regression with one task per value of a column."""

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.task_kinds import TASK_KINDS
from metaloom.search_spaces.sections.few_shot import EVALUATED, Protocol, balance_of, unlabelled_of
from metaloom.workers.data import sampler
from metaloom.workers.data.base import SOURCES, DataError, SampledEpisode, Source, check_split
from metaloom.workers.data.sampler import Rows
from metaloom.workers.data.splits import Lists, by_column, chosen, class_lists, groups_of, is_file_of_lists
from metaloom.workers.data.store import Arrays, cached, file_facts
from metaloom.workers.data.table_columns import Columns
from metaloom.workers.data.table_features import columns_of, features_of, has_numbers_of, with_features
from metaloom.workers.data.table_settings import TableTasks
from metaloom.workers.data.table_task import scaled_targets

ADDED = ("split", "within")  # settings of later versions: without them a cached table stays valid
_LOG = logging.getLogger("metaloom.data")


@SOURCES.register("table")
class Table(sampler.FewShotSource):
    """Few-shot classification of the label column's values; ``open`` gives a ``TableOfTasks`` for numbers.

    Its ``shape`` names the feature columns, and the numbers by which a new table must be scaled.
    """

    name = "table"
    Config = TableTasks

    @classmethod
    def open(cls, config: TableTasks, *, seed: int, cache: Path) -> Source:
        """Map the table's columns; read and check them first if the file or the settings have changed."""
        _check_settings(config)
        path = Path(config.path)
        if not path.is_file():
            raise DataError(f"tasks.path: there is no file {path}")
        unused = {"path", "on_too_few", *EVALUATED, "evaluation", "class_features", "seen_fraction", "whole"}
        settings = {name: value for name, value in asdict(config).items() if name not in unused}
        settings = {name: value for name, value in settings.items() if name not in ADDED or value is not None}
        key = {"source": cls.name, "reader": 4, "file": file_facts(path), "settings": settings}
        if isinstance(config.split, str) and is_file_of_lists(config.split) and Path(config.split).is_file():
            key["split"] = file_facts(Path(config.split))
        return cls._of(cached(cache, cls.name, key, lambda: _load(path, config)), config, seed)

    def as_trained(self, task: TaskShape) -> "Table":
        """Return the source with its rows in the numbers of training; raises DataError if a column is absent."""
        made = self
        if not has_numbers_of(self.shape, task):
            made = Table._of(_load(Path(self.config.path), self.config, task), self.config, self.seed)
        return sampler.FewShotSource.as_trained(made, task)

    @classmethod
    def _of(cls, arrays: Arrays, config: TableTasks, seed: int) -> "Table":
        about = arrays.about
        is_divided = config.split is None
        table = sampler.ClassTable.from_splits(
            about["splits"], about["spans"], about.get("groups"), by_fraction=is_divided
        )
        kind: type[Table] = cls if config.has_classes else TableOfTasks
        source = kind(arrays, table, config, seed=seed, scale=1.0, inputs=(len(about["features"]),))
        source.shape = with_features(source.shape, about)
        source.notes += arrays.remarks
        return source


class TableOfTasks(Table):
    """Targets that are numbers: an episode is rows of one task, which is in one split only."""

    def __init__(self, arrays: Arrays, table: sampler.ClassTable, config: TableTasks, **facts: Any) -> None:
        for split, (first, last) in table.ends.items():
            if first == last and config.whole is None:
                raise DataError(f"tasks.{split}_fraction: the {split} split of {self.name} has no task")
        super().__init__(arrays, table, config, **facts)
        self._y = arrays["y"]
        scaling = arrays.about.get("target_scaling") or {}
        mean, deviation = (tuple(scaling.get(name, ())) for name in ("mean", "deviation"))
        self.shape = replace(self.shape, target_mean=mean, target_deviation=deviation)

    def _protocols(self) -> dict[str, Protocol]:
        return {split: replace(one, ways=(1, 1)) for split, one in super()._protocols().items()}

    def _shape(self, inputs: tuple[int, ...]) -> TaskShape:
        return TaskShape(self.config.kind, inputs, 1)

    def episode(self, split: str, index: int) -> SampledEpisode:
        """Draw a task, and disjoint support and query rows of it."""
        check_split(split, index)
        generator = sampler.episode_generator(self.seed, split, index)
        first, last = self.table.ends[split]
        task, (_, shots, queries) = first + int(generator.integers(last - first)), self.sizes(split, index)
        rows = generator.choice(int(self.table.counts[task]), shots + queries, replace=False)
        rows += self.table.starts[task]
        x, y = self.gather(rows[None], self.table.turns[[task]])[0], torch.from_numpy(self._y[rows])
        episode = Episode(Support(x[:shots], y[:shots]), x[shots:], y[shots:])
        return SampledEpisode(episode, sampler.draw_seed(generator), (task,), tuple(rows.tolist()))


def _check_settings(config: TableTasks) -> None:
    if not config.has_classes and config.task is None:
        raise DataError(
            f"tasks.task: a table for {config.kind} needs a column that says which task a row belongs to, "
            "or tasks.episodes: single_task where all rows are of one task"
        )
    if config.has_classes and config.task is not None:
        able = " or ".join(name for name, kind in TASK_KINDS.items() if kind.labelled and not kind.has_classes)
        raise DataError(f"tasks.task: only {able} has a task column; in {config.kind} the classes make the tasks")
    if not config.has_classes and (field := unlabelled_of(asdict(config))):
        raise DataError(f"{field}: only episodes of classes have examples without labels; remove it")
    if not config.has_classes and config.class_features is not None:
        raise DataError(f"tasks.class_features: they describe classes, and {config.kind} has none; remove it")
    if not config.has_classes and (field := balance_of(asdict(config))):
        raise DataError(f"{field}: only episodes of classes have queries of each; remove it")
    if not config.has_classes and config.within is not None:
        raise DataError("tasks.within: classes are drawn within a group, and regression has none; remove it")
    if overlap := {config.label, config.task} & set(config.features):
        raise DataError(f"tasks.features: '{overlap.pop()}' is the label or the task; it cannot be a feature too")
    for setting, name in config.columns_beside().items():
        if name in config.features:
            raise DataError(f"tasks.features: '{name}' is tasks.{setting}; it cannot be a feature too")
        if name in (config.label, config.task):
            raise DataError(f"tasks.{setting}: '{name}' is the label or the task; name another column")


def _load(path: Path, config: TableTasks, kept: TaskShape | None = None) -> Arrays:
    """Read the table; group its rows by class or task; scale its features by the meta-train rows."""
    read = columns_of(config, belongs=config.task, setting="task", beside=config.columns_beside(), kept=kept)
    for line in read.skipped:
        _LOG.info("%s: skipped %s: missing, no number or infinite", path, line)
    groups = read.label.astype(str) if config.task is None else read.task
    names, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    spans = sampler.spans_of(dict(zip(names.tolist(), sizes.tolist(), strict=True)))
    splits, belongings, told = _divided(config, groups, read)
    train = _rows_of(spans, splits["train"])
    x, about, remarks = features_of(read, order[train], config, kept)
    columns: dict[str, NDArray[Any]] = {"x": x[order]}
    if not config.has_classes:
        targets = read.label[order][:, None]
        columns["y"], about["target_scaling"] = scaled_targets(targets, train, config, kept)
    return Arrays(columns, {"spans": spans, "splits": splits, **belongings, **about}, remarks=(*told, *remarks))


def _divided(
    config: TableTasks, classes: NDArray[np.str_], read: Columns
) -> tuple[Lists, dict[str, dict[str, str]], tuple[str, ...]]:
    """Return the classes (or tasks) of each split, the group of each class, and what to tell of those left out."""
    names, fractions = sorted(set(classes.tolist())), (config.validation_fraction, config.test_fraction)
    groups = {}
    if config.within is not None:
        groups = groups_of(classes.tolist(), read.beside["within"].tolist(), config.path)
    belongings = {"groups": groups} if groups else {}
    if isinstance(config.split, str) and "split" in read.beside:
        lists = by_column(classes.tolist(), read.beside["split"].tolist(), config.split, config.path)
        return lists, belongings, ()
    if config.split is not None:
        lists, told = chosen(class_lists(config.split), names, config.path)
        return lists, belongings, told
    lists = sampler.split_groups(groups, *fractions) if groups else sampler.split_classes(names, *fractions)
    return lists, belongings, ()


def _rows_of(spans: dict[str, tuple[int, int]], names: list[str]) -> Rows:
    """Return the rows of these classes or tasks."""
    return np.concatenate([np.arange(start, start + count) for start, count in (spans[name] for name in names)])
