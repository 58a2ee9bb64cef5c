"""Reads the columns of a user's table; every used cell is checked, and none loses its value on the way."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from metaloom.learners.errors import unknown
from metaloom.workers.data.base import DataError, some
from metaloom.workers.data.table_files import TextFormat, read_table

NUMERIC = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
MARKERS = {"na", "n/a", "nan", "none", "null", "-", "?"}  # texts that often stand for a missing label
_EXACT = 2**53  # up to which float64 holds every whole number


@dataclass(frozen=True)
class Columns:
    """The columns that were read of a table.

    Attributes:
        x: Features, float64 [rows, features].
        label: Labels [rows] of classes, as the text or the whole number that stands in the file; numbers in float64
            where there are no classes; None where they were not asked for.
        task: The task column as text [rows]; None where it was not asked for.
        features: Names of the features' columns.
        left_out: Names of the columns that are neither label nor task, and hold no numbers.
        skipped: One line for each cell whose row was left out.
        notes: What else the reader should know, such as whole numbers that float64 cannot hold.
    """

    x: NDArray[np.float64]
    label: Any
    task: Any
    features: tuple[str, ...]
    left_out: tuple[str, ...]
    skipped: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_columns(
    path: Path,
    *,
    label: str | None,
    task: str | None = None,
    task_setting: str = "task",
    features: Sequence[str] = (),
    has_classes: bool = True,
    may_lack_label: bool = False,
    skip_missing: bool = False,
    text_format: TextFormat | None = None,
    advice: str = "tasks.on_error: skip leaves such rows out",
) -> Columns:
    """Read and check the columns that are asked for.

    Args:
        path: The table.
        label: Name of the label column.
        task: Name of the task column.
        task_setting: The setting of the tasks section that names the task column.
        features: Names of the feature columns; none takes every column of numbers that is neither label nor task.
        has_classes: Whether labels are classes; otherwise they are numbers.
        may_lack_label: Read a table without the label column too.
        skip_missing: Leave out rows with a cell that is missing, no number or infinite, instead of refusing the table.
        text_format: How a CSV file is written; None finds it.
        advice: The remedy that an error about such a cell names.

    Raises:
        DataError: A column is absent or not of its type, or a cell is such; row and column are named.
    """
    as_text = [name for name in (label if has_classes else None, task) if name is not None]
    table = read_table(path, as_text=as_text, text_format=text_format)
    label = None if may_lack_label and label not in table.column_names else label
    for field, names in (("label", [label]), (task_setting, [task]), ("features", features)):
        for name in names:
            if name is not None and name not in table.column_names:
                raise DataError(f"tasks.{field}: {path}: " + unknown("column", name, table.column_names))
    if not table.num_rows:
        raise DataError(f"{path}: the table has no row")
    numbers = _features(path, table, features, (label, task))
    chosen = tuple(numbers)
    bad = {name: ~np.isfinite(_float32(column)) for name, column in numbers.items()}
    texts = {
        name: _labels(path, table, name, task_setting if name == task else "label")
        for name in as_text
        if name in table.column_names
    }
    bad |= {name: _is_missing(column) for name, column in texts.items()}
    targets = None
    if label is not None and not has_classes:
        targets = _targets(path, table, label)
        bad[label] = ~np.isfinite(_float32(targets))
    lines = tuple(_lines(table, bad))
    if lines and not skip_missing:
        what = "a value that is missing, not a number or infinite"
        raise DataError(f"{path}: {what} in {some(lines)} (rows count from 0; {advice})")
    keep = ~np.any(list(bad.values()), axis=0)
    kept = {name: _kept(column, keep) for name, column in texts.items()}
    labels = targets[keep] if targets is not None else kept.get(label or "")
    given = [name for name in table.column_names if name not in (label, task)]
    left_out = () if features else tuple(name for name in given if name not in chosen)
    notes = [*_lost(table, numbers), *(_marked(labels) if has_classes and labels is not None else ())]
    tasks = None if task is None else kept[task].astype(str)
    x = np.stack(list(numbers.values()), axis=1)[keep]
    return Columns(x, labels, tasks, chosen, left_out, lines, tuple(notes))


def _features(
    path: Path, table: Any, features: Sequence[str], others: tuple[str | None, ...]
) -> dict[str, NDArray[np.float64]]:
    """Return the feature columns as float64; raises DataError if one that is asked for, or each, holds no numbers."""
    given = [name for name in table.column_names if name not in others]
    read = ((name, _numbers(table.column(name))) for name in features or given)
    numbers = {name: column for name, column in read if column is not None}
    if strange := [name for name in features if name not in numbers]:
        kind = table.schema.field(strange[0]).type
        raise DataError(f"tasks.features: {path}: column '{strange[0]}' is {kind}, and a feature must be a number")
    if not numbers:
        raise DataError(f"tasks.features: {path} has no numeric column besides the label and the task")
    return numbers


def _labels(path: Path, table: Any, name: str, field: str) -> Any:
    """Return a column of classes or tasks, categories as their values; raises DataError for lists and structs."""
    column = table.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_nested(column.type):
        raise DataError(
            f"tasks.{field}: {path}: column '{name}' is {column.type}; a {field} is a text, a number or a date"
        )
    return column


def _targets(path: Path, table: Any, label: str) -> NDArray[np.float64]:
    targets = _numbers(table.column(label))
    if targets is None:
        raise DataError(f"tasks.label: {path}: column '{label}' is not a number, and targets must be")
    return targets


def _is_missing(column: Any) -> NDArray[np.bool_]:
    """Return which labels are missing: null, not a number, or a text without a character."""
    missing: NDArray[np.bool_] = column.is_null(nan_is_null=True).to_numpy()
    if any(is_kind(column.type) for is_kind in TEXT):
        missing |= np.array([not (cell or "").strip() for cell in column.to_pylist()], dtype=bool)
    return missing


def _kept(column: Any, keep: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the kept cells, whole numbers as such: without its missing cells no column becomes floating-point."""
    packed = pa.py_buffer(np.packbits(keep, bitorder="little").tobytes())
    kept: NDArray[Any] = column.filter(pa.Array.from_buffers(pa.bool_(), len(keep), [None, packed])).to_numpy()
    return kept


def _lines(table: Any, bad: dict[str, NDArray[np.bool_]]) -> Iterator[str]:
    """Describe each cell that cannot be used, in the order of rows."""
    problems = [(int(row), name) for name, marks in bad.items() for row in np.flatnonzero(marks)]
    for row, name in sorted(problems):
        cell = table.column(name)[row].as_py()
        quoted = f" ('{cell[:40]}')" if isinstance(cell, str) else ""
        yield f"row {row}, column '{name}'{quoted}"


def _lost(table: Any, numbers: dict[str, NDArray[np.float64]]) -> Iterator[str]:
    """Name columns of whole numbers that differ in the file, and are equal in float64."""
    for name, column in numbers.items():
        kind = table.column(name).type
        if (pa.types.is_integer(kind) or pa.types.is_decimal(kind)) and np.nanmax(np.abs(column), initial=0) > _EXACT:
            had, left = pc.count_distinct(table.column(name)).as_py(), len(np.unique(column[np.isfinite(column)]))
            if left < had:
                yield (
                    f"column '{name}' has whole numbers beyond 2**53: of {had} distinct values float64 keeps {left}; "
                    f"subtract what they share"
                )


def _marked(labels: NDArray[Any]) -> Iterator[str]:
    """Name classes that may stand for a missing label; a missing label is an empty cell."""
    names, counts = np.unique(labels.astype(str), return_counts=True)
    found = [f"'{n}' ({c} rows)" for n, c in zip(names, counts, strict=True) if n.strip().lower() in MARKERS]
    if found:
        yield f"taken as classes of their own: {some(found)}; where they mean that the label is missing, empty the cell"


def _float32(column: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        return column.astype(np.float32)


def _numbers(column: Any) -> NDArray[np.float64] | None:
    """Return a column as float64, a cell that is missing or no number as NaN; None for a column not of numbers.

    One unreadable cell makes a reader take its whole column for text: text is a column of numbers where more than
    half of its cells are.
    """
    kind = column.type
    if any(is_kind(kind) for is_kind in NUMERIC):
        return np.array(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
    if not any(is_kind(kind) for is_kind in TEXT):
        return None
    found = np.array([_number(cell) for cell in column.to_pylist()], dtype=np.float64)
    return found if 2 * np.isfinite(found).sum() > len(column) - column.null_count else None


def _number(cell: str | None) -> float:
    with contextlib.suppress(ValueError):
        return float(cell or "nan")
    return float("nan")
