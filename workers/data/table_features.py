"""What a table's rows become: features standardized by the training rows, and what the user is told of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaloom.learners.episode import TaskShape
from metaloom.workers.data.base import DataError, some
from metaloom.workers.data.class_table import Rows
from metaloom.workers.data.table_columns import CellRules, Columns, read_columns
from metaloom.workers.data.table_encoding import STRATEGIES, FittedColumn, encoded, fit
from metaloom.workers.data.table_kinds import CATEGORY, DATE, NUMBER, Feature
from metaloom.workers.data.table_settings import TableSettings

LEAVE_OUT = "leave_out"
EMPTY = "have no value in any training row"
_NUMBERS = ("features", "mean", "deviation", "columns", "target_mean", "target_deviation")
MOST_LISTED = 20  # features by name


def columns_of(
    config: TableSettings,
    *,
    belongs: str | None,
    setting: str,
    beside: Mapping[str, str] = MappingProxyType({}),
    kept: TaskShape | None = None,
) -> Columns:
    """Read a table as its settings say; raises DataError.

    Args:
        config: The settings.
        belongs: The column of what a row belongs to, its task or part.
        setting: The setting that names that column.
        beside: Further columns that are no features, by the setting that names each.
        kept: The task of a training, whose columns are read; None reads those that the settings say.
    """
    rules = cell_rules(config)
    return read_columns(
        Path(config.path),
        rules if kept is None else kept_rules(kept, rules),
        label=config.label,
        task=belongs,
        task_setting=setting,
        beside=beside,
        has_classes=config.has_classes,
    )


def cell_rules(config: TableSettings) -> CellRules:
    """Return how the settings say that cells are read."""
    missing = config.missing or config.on_error
    return CellRules(
        features=config.features,
        takes=frozenset(
            [*([CATEGORY] if config.categories != LEAVE_OUT else []), *([DATE] if config.dates != LEAVE_OUT else [])]
        ),
        missing="fill" if missing in STRATEGIES else missing,  # type: ignore[arg-type]
        unreadable=config.on_error,
        leaves_out_numbering=True,
        text_format=config.text_format,
        advice="tasks.on_error: skip leaves such rows out, and tasks.missing: median fills missing cells",
    )


def kept_columns(task: TaskShape) -> list[FittedColumn]:
    """Return how a table's columns became a task's features; empty where the task names none."""
    if task.columns:
        return list(map(FittedColumn.of, task.columns))
    return [FittedColumn(name, NUMBER, (name,)) for name in task.features]


def kept_rules(task: TaskShape, rules: CellRules) -> CellRules:
    """Return the rules with the columns of a task, and what is done there with missing cells."""
    fitted = kept_columns(task)
    fills = bool(fitted) and all(one.fills for one in fitted)
    return replace(
        rules,
        features=tuple(one.column for one in fitted),
        takes=frozenset((CATEGORY, DATE)) if task.columns else frozenset(),
        as_text=tuple(one.column for one in fitted if one.kind == CATEGORY),
        missing="fill" if fills else rules.unreadable,
        leaves_out_numbering=False,
    )


def has_numbers_of(shape: TaskShape, task: TaskShape) -> bool:
    """Return whether two tasks' examples are made of a table's cells by the same numbers, as far as these are kept."""
    return not task.features or all(getattr(shape, name) == getattr(task, name) for name in _NUMBERS)


def features_of(
    read: Columns, train: Rows, config: TableSettings, kept: TaskShape | None = None
) -> tuple[NDArray[np.float32], dict[str, Any], tuple[str, ...]]:
    """Return the features [rows, features], what the source's ``shape`` needs, and remarks for the user.

    Args:
        read: The table's columns.
        train: The rows by which features are standardized, and all else is fitted.
        config: The settings.
        kept: The task of a training, whose numbers are used; None fits them.
    """
    if kept is not None:
        raw, numbers = encoded(kept_columns(kept), read.features), {"mean": kept.mean, "deviation": kept.deviation}
        x = scaled(raw, numbers) if kept.mean else raw.astype(np.float32)
        return x, {"features": kept.features, "scaling": numbers, "columns": kept.columns}, read.notes
    empty = [one.name for one in read.features if one.missing[train].all()]
    columns = [one for one in read.features if one.name not in empty]
    if not columns or (config.features and empty):
        raise DataError(f"tasks.features: {config.path}: {some(list(map(repr, empty)))} {EMPTY}")
    missing = config.missing or config.on_error
    by, constant = config.categories, config.constant
    fitted, raw = fit(columns, train, read.label, missing=missing, constant=constant, by=by)
    names = [name for one in fitted for name in one.names]
    x, scaling = standardized(raw, train) if config.standardize else (raw.astype(np.float32), {})
    about: dict[str, Any] = {"features": names, "scaling": scaling}
    if any(one.kind != NUMBER or one.fills for one in fitted):
        about["columns"] = [one.to_json() for one in fitted]
    unscaled = [] if config.standardize else list(zip(names, raw.T, strict=True))
    remarks = [*_told(read, columns, fitted, config), *_rounded(unscaled, "tasks.standardize: true keeps them apart")]
    if not config.has_classes and not config.standardize:
        remarks += _rounded([(config.label, read.label)], "tasks.standardize: true keeps them apart")
    return x, about, tuple(remarks)


def with_features(shape: TaskShape, about: Mapping[str, Any]) -> TaskShape:
    """Return a task's shape with the names of a table's features, and how a new table's rows become them."""
    mean, deviation = (tuple(about["scaling"].get(name, ())) for name in ("mean", "deviation"))
    columns = tuple(about.get("columns", ()))
    return replace(shape, features=tuple(about["features"]), mean=mean, deviation=deviation, columns=columns)


def _told(
    read: Columns, columns: Sequence[Feature], fitted: Sequence[FittedColumn], config: TableSettings
) -> Iterator[str]:
    """Say which of the table's rows and columns are used, as what, and which are not."""
    if read.skipped:
        rows = read.rows - len(read.features[0].values)
        what = f"{len(read.skipped)} values missing or no numbers"
        yield f"{rows} of {read.rows} rows skipped for {what}: {some(read.skipped)}"
    left_out = dict(read.left_out)
    if len(columns) < len(read.features):
        left_out[EMPTY] = [one.name for one in read.features if one.name not in {used.name for used in columns}]
    for reason, names in left_out.items():
        why, _, advice = reason.partition(" (")
        yield f"not used as features, since they {why}: {some(list(map(repr, names)))}{advice and f' ({advice}'}"
    width = sum(len(one.names) for one in fitted)
    how = {CATEGORY: f", {config.categories.replace('_', '-')}", DATE: ", as seconds"}
    listed = [f"'{one.name}' ({one.described}{how.get(one.kind, '')})" for one in columns]
    noun = "1 feature" if width == 1 else f"{width} features"
    yield f"{noun}: {some(listed, MOST_LISTED)}"
    if gaps := {one.name: int(one.missing.sum()) for one in columns if one.missing.any()}:
        means = f"{config.constant:g}" if config.missing == "constant" else f"a {STRATEGIES[str(config.missing)]}"
        yield f"{sum(gaps.values())} missing values filled by {means}: in {some(list(map(repr, gaps)))}"
    yield from read.notes


def standardized(x: NDArray[Any], train: Rows) -> tuple[NDArray[np.float32], dict[str, list[float]]]:
    """Scale to mean 0 and deviation 1 over the training rows, in float64; a constant feature becomes 0.

    The cast to float32 comes last: before it, it would round the differences of numbers with a large offset away.
    """
    known = x[train].astype(np.float64)
    is_constant = known.min(0) == known.max(0)  # its computed mean may be off by a rounding
    mean = np.where(is_constant, known[0], known.mean(0))
    deviation = np.where(is_constant, 1.0, known.std(0))
    scaling = {"mean": mean.tolist(), "deviation": deviation.tolist()}
    return scaled(x, scaling), scaling


def scaled(x: NDArray[Any], scaling: Mapping[str, Sequence[float]]) -> NDArray[np.float32]:
    """Scale by these numbers in float64, then cast."""
    return np.asarray((x - np.asarray(scaling["mean"])) / np.asarray(scaling["deviation"]), dtype=np.float32)


def _rounded(named: Iterable[tuple[str, NDArray[np.float64]]], remedy: str) -> Iterator[str]:
    """Name columns whose values float32 cannot tell apart where they are used as they are."""
    for name, column in named:
        had, left = len(np.unique(column)), len(np.unique(column.astype(np.float32)))
        if left < 0.9 * had:
            yield f"of {had} distinct values of '{name}' float32 keeps {left}; {remedy}"
