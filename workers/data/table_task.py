"""The user's own table as one labelled data set: rows divided by class, features standardized by training rows."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from metaloom.workers.data.base import DataError, some
from metaloom.workers.data.sampler import Rows
from metaloom.workers.data.store import Arrays, cached, file_facts
from metaloom.workers.data.table_settings import TableAsOneTask
from metaloom.workers.data.user_files import Columns, read_columns
from metaloom.workers.data.user_single_task import OF_EPISODES, UserTask, divide_examples, part_named, stored

READER = 1  # in the cache's key: another number where the same table gives other arrays


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
        arrays = cached(cache, "table_task", key, lambda: _load(path, config))
        about = arrays.about
        source = cls(arrays, config, seed=seed, scale=1.0, inputs=(len(about["features"]),))
        mean, deviation = (tuple(about["scaling"].get(name, ())) for name in ("mean", "deviation"))
        source.shape = replace(source.shape, features=tuple(about["features"]), mean=mean, deviation=deviation)
        source.notes = (*source.notes, *_notes(about))
        return source


def _check_settings(config: TableAsOneTask) -> None:
    if overlap := {config.label, config.split} & set(config.features):
        raise DataError(f"tasks.features: '{overlap.pop()}' is the label or the split; it cannot be a feature too")
    if config.split == config.label:
        raise DataError(f"tasks.split: '{config.split}' is the label; it cannot say which part a row belongs to")


def _load(path: Path, config: TableAsOneTask) -> Arrays:
    skip, features = config.on_error == "skip", config.features
    columns: dict[str, Any] = {"label": config.label, "task": config.split, "task_setting": "split"}
    read = read_columns(path, features=features, skip_missing=skip, **columns)
    names, classes = np.unique(read.label.astype(str), return_inverse=True)
    given = None if config.split is None else _given_parts(read, config.split, path)
    parts = divide_examples(classes.astype(np.int64), config, given)
    x, scaling = standardized(read.x, parts["train"]) if config.standardize else (read.x.astype(np.float32), {})
    about = {"features": read.features, "scaling": scaling, "skipped": read.skipped, "left_out": read.left_out}
    return stored({"x": x, "y": classes.astype(np.int64)}, parts, {"classes": names.tolist(), **about})


def _given_parts(read: Columns, column: str, path: Path) -> list[str]:
    spelt = {name: part_named(name, f"tasks.split: {path}: column '{column}'") for name in np.unique(read.task)}
    return [spelt[name] for name in read.task]


def standardized(x: NDArray[Any], train: Rows) -> tuple[NDArray[np.float32], dict[str, list[float]]]:
    """Scale to mean 0 and deviation 1 over the training rows, in float64; a constant feature becomes 0."""
    chosen = x[train].astype(np.float64)
    mean, deviation = chosen.mean(0), chosen.std(0)
    deviation[deviation == 0] = 1.0
    scaled = ((x - mean) / deviation).astype(np.float32)
    return scaled, {"mean": mean.tolist(), "deviation": deviation.tolist()}


def _notes(about: dict[str, Any]) -> Iterator[str]:
    if skipped := about["skipped"]:
        yield f"{len(skipped)} values missing or no numbers, their rows skipped: {some(skipped)}"
    if left_out := about["left_out"]:
        yield f"not used as features, since they hold no numbers: {some(list(map(repr, left_out)))}"
