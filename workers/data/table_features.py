"""What a table's rows become: features standardized by the training rows, and what the user is told of them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaloom.workers.data.base import some
from metaloom.workers.data.sampler import Rows
from metaloom.workers.data.store import Arrays
from metaloom.workers.data.table_columns import Columns, read_columns
from metaloom.workers.data.table_settings import TableSettings


def columns_of(config: TableSettings, *, belongs: str | None, setting: str) -> Columns:
    """Read a table as its settings say; raises DataError.

    Args:
        config: The settings.
        belongs: The column of what a row belongs to, its task or part.
        setting: The setting that names that column.
    """
    return read_columns(
        Path(config.path),
        label=config.label,
        task=belongs,
        task_setting=setting,
        features=config.features,
        has_classes=config.has_classes,
        skip_missing=config.on_error == "skip",
        text_format=config.text_format,
    )


def features_of(
    read: Columns, train: Rows, config: TableSettings
) -> tuple[NDArray[np.float32], dict[str, Any], tuple[str, ...]]:
    """Return the features [rows, features], what the source's ``shape`` and the notes need, and remarks for the user.

    Args:
        read: The table's columns.
        train: The rows by which features are standardized.
        config: The settings.
    """
    x, scaling = standardized(read.x, train) if config.standardize else (read.x.astype(np.float32), {})
    about = {"features": read.features, "scaling": scaling, "skipped": read.skipped, "left_out": read.left_out}
    raw = [] if config.standardize else list(zip(read.features, read.x.T, strict=True))
    remarks = [*read.notes, *_rounded(raw, "tasks.standardize: true keeps them apart")]
    if not config.has_classes and not config.standardize:
        remarks += _rounded([(config.label, read.label)], "tasks.standardize: true keeps them apart")
    return x, about, tuple(remarks)


def standardized(x: NDArray[Any], train: Rows) -> tuple[NDArray[np.float32], dict[str, list[float]]]:
    """Scale to mean 0 and deviation 1 over the training rows, in float64; a constant feature becomes 0.

    The cast to float32 comes last: before it, it would round the differences of numbers with a large offset away.
    """
    known = x[train].astype(np.float64)
    is_constant = known.min(0) == known.max(0)  # its computed mean may be off by a rounding
    mean = np.where(is_constant, known[0], known.mean(0))
    deviation = np.where(is_constant, 1.0, known.std(0))
    scaled = ((x - mean) / deviation).astype(np.float32)
    return scaled, {"mean": mean.tolist(), "deviation": deviation.tolist()}


def table_notes(arrays: Arrays) -> Iterator[str]:
    """Say which of the table's rows and columns are not used, and what else the user should know."""
    if skipped := arrays.about["skipped"]:
        yield f"{len(skipped)} values missing or no numbers, their rows skipped: {some(skipped)}"
    if left_out := arrays.about["left_out"]:
        yield f"not used as features, since they hold no numbers: {some(list(map(repr, left_out)))}"
    yield from arrays.remarks


def _rounded(named: Iterable[tuple[str, NDArray[np.float64]]], remedy: str) -> Iterator[str]:
    """Name columns whose values float32 cannot tell apart where they are used as they are."""
    for name, column in named:
        had, left = len(np.unique(column)), len(np.unique(column.astype(np.float32)))
        if left < 0.9 * had:
            yield f"of {had} distinct values of '{name}' float32 keeps {left}; {remedy}"
