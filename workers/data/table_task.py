"""The user's own table as one labelled data set: rows divided by class, features standardized by training rows."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from metaloom.learners.episode import TaskShape
from metaloom.workers.data.base import ONE_TASK_SOURCES, DataError
from metaloom.workers.data.sampler import Rows
from metaloom.workers.data.store import Arrays, cached, file_facts
from metaloom.workers.data.table_columns import Columns
from metaloom.workers.data.table_features import (
    columns_of,
    features_of,
    has_numbers_of,
    scaled,
    standardized,
    with_features,
)
from metaloom.workers.data.table_settings import TableAsOneTask, TableSettings
from metaloom.workers.data.user_single_task import OF_EPISODES, UserTask, divide_examples, part_named, stored

READER = 3  # in the cache's key: another number where the same table gives other arrays


@ONE_TASK_SOURCES.register("table")
class TableTask(UserTask):
    """Batches of the rows of a table. Its ``shape`` names the features, and how a new table must be scaled."""

    name = "table"
    Config = TableAsOneTask

    @classmethod
    def open(cls, config: TableAsOneTask, *, seed: int, cache: Path) -> Self:
        """Map the table's columns; read, check and divide them first if the file or the settings have changed."""
        _check_settings(config)
        path = Path(config.path)
        if not path.is_file():
            raise DataError(f"tasks.path: there is no file {path}")
        settings = {name: value for name, value in asdict(config).items() if name not in OF_EPISODES}
        key = {"source": cls.name, "reader": READER, "file": file_facts(path), "settings": settings}
        return cls._of(cached(cache, "table_task", key, lambda: _load(path, config)), config, seed)

    def as_trained(self, task: TaskShape) -> Self:
        """Return the source with its rows in the numbers of training; raises DataError if a column is absent."""
        if has_numbers_of(self.shape, task):
            return self
        config = self.config
        assert isinstance(config, TableAsOneTask)
        return self._of(_load(Path(config.path), config, task), config, self.seed)

    @classmethod
    def _of(cls, arrays: Arrays, config: TableAsOneTask, seed: int) -> Self:
        about = arrays.about
        source = cls(arrays, config, seed=seed, scale=1.0, inputs=(len(about["features"]),))
        source.shape = with_features(source.shape, about)
        source.notes = (*source.notes, *arrays.remarks)
        return source


def _check_settings(config: TableAsOneTask) -> None:
    if overlap := {config.label, config.split} & set(config.features):
        raise DataError(f"tasks.features: '{overlap.pop()}' is the label or the split; it cannot be a feature too")
    if config.split == config.label:
        raise DataError(f"tasks.split: '{config.split}' is the label; it cannot say which part a row belongs to")


def _load(path: Path, config: TableAsOneTask, kept: TaskShape | None = None) -> Arrays:
    read = columns_of(config, belongs=config.split, setting="split", kept=kept)
    given = None if config.split is None else _given_parts(read, config.split, path)
    y: NDArray[Any]
    if config.has_classes:
        names, classes = np.unique(read.label.astype(str), return_inverse=True)
        y, kinds = classes.astype(np.int64), {"classes": names.tolist()}
        parts = divide_examples(y, config, given)
    else:
        parts = divide_examples(np.zeros(len(read.label), dtype=np.int64), config, given)
        y, scaling = scaled_targets(read.label[:, None], parts["train"], config, kept)
        kinds = {"target_scaling": scaling}
    x, about, remarks = features_of(read, parts["train"], config, kept)
    return replace(stored({"x": x, "y": y}, parts, {**kinds, **about}), remarks=remarks)


def _given_parts(read: Columns, column: str, path: Path) -> list[str]:
    spelt = {name: part_named(name, f"tasks.split: {path}: column '{column}'") for name in np.unique(read.task)}
    return [spelt[name] for name in read.task]


def scaled_targets(
    y: NDArray[np.float64], train: Rows, config: TableSettings, kept: TaskShape | None = None
) -> tuple[NDArray[np.float32], dict[str, list[float]]]:
    """Return targets to mean 0 and deviation 1 over the training rows, and what they were scaled by.

    Args:
        y: [rows, 1].
        train: The training rows.
        config: With ``standardize: false`` the targets stay as they are, and the second result is empty.
        kept: The task of a training, whose numbers are used; None fits them.

    Raises:
        DataError: The target is the same in all training rows.
    """
    if kept is not None and kept.target_mean:
        scaling = {"mean": list(kept.target_mean), "deviation": list(kept.target_deviation)}
        return scaled(y, scaling), scaling
    chosen = y[train]
    if (chosen == chosen[:1]).all():
        only = f"'{config.label}' is {chosen[0, 0]:g} in every training row"
        raise DataError(f"tasks.label: {only}: there is nothing to learn")
    if not config.standardize:
        return y.astype(np.float32), {}
    return standardized(y, train)
