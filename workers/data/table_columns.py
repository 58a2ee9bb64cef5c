"""Reads the columns of a user's table; every used cell is checked, and none loses its value on the way."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from metaloom.learners.errors import unknown
from metaloom.workers.data.base import DataError, some
from metaloom.workers.data.table_files import UNNAMED, TextFormat, decimal_of, read_table
from metaloom.workers.data.table_kinds import (
    CATEGORY,
    DATE,
    NUMBER,
    Feature,
    NotAFeature,
    as_asked,
    as_feature,
    is_text,
    marked_as_missing,
    merged_by_float64,
)

MOST_CATEGORIES = 100  # of a column that is not named as a feature: above, its values are ids or sentences
NAMELESS = re.compile(rf"\s*|{UNNAMED}\d+|__index_level_\d+__")  # the latter is pandas' name of an index without one
NO_NUMBERS = "hold no numbers"
NUMBERING = "number the rows (unnamed, or whole numbers of which no two are equal; tasks.features takes them)"
MANY = f"hold more than {MOST_CATEGORIES} different texts (tasks.features takes them)"
ADVICE = {CATEGORY: "tasks.categories: one_hot or target takes text", DATE: "tasks.dates: numbers takes dates"}
Handling = Literal["refuse", "skip", "fill"]


@dataclass(frozen=True)
class CellRules:
    """Which columns are features, and what happens to cells that cannot be used.

    Attributes:
        features: Names of the feature columns; none takes every column of numbers that is neither label nor task.
        takes: The kinds of column that may be features, beside numbers and vectors.
        as_text: Columns that are categories whatever they look like, of a CSV file by the text that stands there.
        missing: Refuse a table with a missing cell, skip its row, or keep it to be filled.
        unreadable: Likewise for a cell that is no number, or infinite, and for a missing label.
        leaves_out_numbering: Take no column that numbers the rows, where ``features`` is empty.
        text_format: How a CSV file is written; None finds it.
        advice: The remedy that an error about a cell names.
    """

    features: tuple[str, ...] = ()
    takes: frozenset[str] = frozenset()
    as_text: tuple[str, ...] = ()
    missing: Handling = "refuse"
    unreadable: Literal["refuse", "skip"] = "refuse"
    leaves_out_numbering: bool = False
    text_format: TextFormat | None = None
    advice: str = "tasks.on_error: skip leaves such rows out"


@dataclass(frozen=True)
class Columns:
    """The columns that were read of a table.

    Attributes:
        features: The feature columns, of the kept rows.
        label: Labels [labelled rows] of classes, as the text or the whole number that stands in the file; numbers in
            float64 where there are no classes; None where they were not asked for.
        task: The task column as text [rows]; None where it was not asked for.
        left_out: Names of the columns that are neither label nor task, and not used, by the reason: "since they ...".
        skipped: One line for each cell whose row was left out.
        rows: How many rows the table has, with those.
        notes: What else the reader should know, such as whole numbers that float64 cannot hold.
        labelled: Which rows have a label [rows]; None where all have.
        beside: Further columns as text [rows], by the setting that names each.
    """

    features: tuple[Feature, ...]
    label: Any
    task: Any
    left_out: Mapping[str, Sequence[str]]
    skipped: tuple[str, ...]
    rows: int
    notes: tuple[str, ...] = ()
    labelled: NDArray[np.bool_] | None = None
    beside: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def read_columns(
    path: Path,
    rules: CellRules = CellRules(),
    *,
    label: str | None,
    task: str | None = None,
    task_setting: str = "task",
    beside: Mapping[str, str] = MappingProxyType({}),
    has_classes: bool = True,
    may_lack_label: bool = False,
    may_miss_labels: bool = False,
) -> Columns:
    """Read and check the columns that are asked for.

    Args:
        path: The table.
        rules: Which columns are features, and how cells are handled.
        label: Name of the label column.
        task: Name of the task column.
        task_setting: The setting of the tasks section that names the task column.
        beside: Further columns of texts that are no features, by the setting that names each.
        has_classes: Whether labels are classes; otherwise they are numbers.
        may_lack_label: Read a table without the label column too.
        may_miss_labels: Keep rows without a label.

    Raises:
        DataError: A column is absent or not of its type, or a cell is such; row and column are named.
    """
    settings = {task: task_setting} | {name: setting for setting, name in beside.items()}
    as_text = [name for name in (label if has_classes else None, task, *beside.values()) if name is not None]
    table = read_table(path, as_text=(*as_text, *rules.as_text), text_format=rules.text_format)
    label = None if may_lack_label and label not in table.column_names else label
    further = ((setting, [name]) for setting, name in beside.items())
    _check_columns(path, table, (("label", [label]), (task_setting, [task]), *further, ("features", rules.features)))
    features, left_out = _features(path, table, rules, (label, task, *beside.values()))
    may_miss = label if may_miss_labels else None
    if may_miss is not None and not has_classes and table.column(may_miss).null_count == table.num_rows:
        label = may_miss = None  # an empty column has no type
    texts = {
        name: class_column(path, table, name, settings.get(name, "label"))
        for name in as_text
        if name in table.column_names
    }
    targets = None if label is None or has_classes else _targets(path, table, label)
    others = {name: missing_labels(column) for name, column in texts.items()}
    others |= {} if targets is None else {targets.name: targets.missing}
    missed = None if may_miss is None else others.pop(may_miss)
    others |= {} if targets is None else {targets.name: targets.unusable | others.get(targets.name, False)}
    keep, lines = _usable(path, table, features, others, rules)
    scored = keep if missed is None else keep & ~missed
    kept = {name: kept_cells(column, scored if name == label else keep) for name, column in texts.items()}
    labels = kept.get(label or "") if targets is None else targets.values[scored]
    notes = [merged for one in features if (merged := merged_by_float64(one, table.column(one.name)))]
    notes += marked_as_missing(labels) if has_classes and labels is not None else ()
    tasks = None if task is None else kept[task].astype(str)
    labelled = None if missed is None else scored[keep]
    columns = tuple(one.kept(keep) for one in features)
    texts_beside = {setting: kept[name].astype(str) for setting, name in beside.items()}
    return Columns(columns, labels, tasks, left_out, lines, len(keep), tuple(notes), labelled, texts_beside)


def _usable(
    path: Path, table: Any, features: Sequence[Feature], others: Mapping[str, NDArray[np.bool_]], rules: CellRules
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Return the rows to keep [rows], and a line for each cell whose row is skipped.

    Raises DataError for a cell that is to be refused.
    """
    missing = {feature.name: feature.missing for feature in features}
    bad = {feature.name: feature.unusable for feature in features} | dict(others)
    marks: dict[str, dict[str, NDArray[np.bool_]]] = {"refuse": {}, "skip": {}, "fill": {}}
    for handling, found in ((rules.missing, missing), (rules.unreadable, bad)):
        for name, cells in found.items():
            marks[handling][name] = marks[handling].get(name, False) | cells
    if refused := list(_lines(table, marks["refuse"])):
        what = "a value that is missing, not a number or infinite"
        raise DataError(f"{path}: {what} in {some(refused)} (rows count from 0; {rules.advice})")
    keep = np.ones(table.num_rows, dtype=bool)
    for cells in marks["skip"].values():
        keep &= ~cells
    lines = tuple(_lines(table, marks["skip"]))
    if not keep.any():
        raise DataError(f"{path}: no row is left: each has a value that is missing or no number, as in {some(lines)}")
    return keep, lines


def _check_columns(path: Path, table: Any, asked: Sequence[tuple[str, Sequence[str | None]]]) -> None:
    for setting, names in asked:
        for name in names:
            if name is not None and name not in table.column_names:
                raise DataError(f"tasks.{setting}: {path}: " + unknown("column", name, table.column_names))
    if not table.num_rows:
        raise DataError(f"{path}: the table has no row")


def _features(
    path: Path, table: Any, rules: CellRules, others: tuple[str | None, ...]
) -> tuple[list[Feature], dict[str, list[str]]]:
    """Return the feature columns, and the names of those that are left out by the reason.

    Raises DataError if a column that is asked for cannot be a feature, or none can.
    """
    if not rules.features:
        found, left_out = usable_columns(table, rules, others)
        if not found:
            reasons = "; ".join(f"{some(list(map(repr, names)))} {reason}" for reason, names in left_out.items())
            nothing = f"{path} has no numeric column besides the label and the task"
            raise DataError(f"tasks.features: {nothing}{reasons and f': {reasons}'}")
        return found, left_out
    found = []
    for name in rules.features:
        try:
            found.append(_feature(name, table, rules))
        except NotAFeature as why:
            kind, (_, _, advice) = table.schema.field(name).type, str(why).partition(" (")
            what = f"column '{name}' is {kind}, and a feature must be a number{advice and f' ({advice}'}"
            raise DataError(f"tasks.features: {path}: {what}") from why
    return found, {}


def usable_columns(
    table: Any, rules: CellRules, others: Sequence[str | None]
) -> tuple[list[Feature], dict[str, list[str]]]:
    """Return the columns but ``others`` that can be features, and the names of the rest by the reason."""
    found: list[Feature] = []
    left_out: dict[str, list[str]] = {}
    for name in [name for name in table.column_names if name not in others]:
        try:
            found.append(_feature(name, table, rules))
        except NotAFeature as why:
            left_out.setdefault(str(why), []).append(name)
    return _without_numberings(found, left_out) if rules.leaves_out_numbering else found, left_out


def _feature(name: str, table: Any, rules: CellRules) -> Feature:
    """Return a column as a feature; raises NotAFeature where it is none, or not asked for."""
    column, decimal = table.column(name), decimal_of(table)
    if rules.features:
        feature = as_asked(name, column, is_category=name in rules.as_text, decimal=decimal)
    else:
        feature = as_feature(name, column, decimal)
    if feature.kind in ADVICE and feature.kind not in rules.takes:
        raise NotAFeature(f"{NO_NUMBERS} ({ADVICE[feature.kind]})")
    if feature.kind == CATEGORY and not rules.features and len(set(feature.values)) > MOST_CATEGORIES:
        raise NotAFeature(MANY)
    return feature


def _without_numberings(found: list[Feature], left_out: dict[str, list[str]]) -> list[Feature]:
    """Leave out an index without a name, and whole numbers of which no two are equal, unless nothing else is there."""
    unnamed = [one for one in found if NAMELESS.fullmatch(one.name)]
    numberings = [one for one in found if one.is_numbering and one not in unnamed]
    for some_of_them in (unnamed, numberings):
        if 0 < len(some_of_them) < len(found):
            found = [one for one in found if all(one is not other for other in some_of_them)]
            left_out.setdefault(NUMBERING, []).extend(one.name for one in some_of_them)
    return found


def class_column(path: Path, table: Any, name: str, field: str) -> Any:
    """Return a column of classes or tasks, categories as their values; raises DataError for lists and structs."""
    column = table.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.string())  # arrow cannot filter views
    if pa.types.is_nested(column.type):
        raise DataError(
            f"tasks.{field}: {path}: column '{name}' is {column.type}; a {field} is a text, a number or a date"
        )
    return column


def _targets(path: Path, table: Any, label: str) -> Feature:
    try:
        targets = as_feature(label, table.column(label), decimal_of(table))
    except NotAFeature:
        targets = None
    if targets is None or targets.kind != NUMBER:
        raise DataError(f"tasks.label: {path}: column '{label}' is not a number, and targets must be")
    return targets


def missing_labels(column: Any) -> NDArray[np.bool_]:
    """Return which labels are missing: null, not a number, or a text without a character."""
    missing: NDArray[np.bool_] = column.is_null(nan_is_null=True).to_numpy()
    if is_text(column.type):
        missing |= np.array([not (cell or "").strip() for cell in column.to_pylist()], dtype=bool)
    return missing


def kept_cells(column: Any, keep: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the kept cells, whole numbers as such: without its missing cells no column becomes floating-point."""
    packed = pa.py_buffer(np.packbits(keep, bitorder="little").tobytes())
    kept: NDArray[Any] = column.filter(pa.Array.from_buffers(pa.bool_(), len(keep), [None, packed])).to_numpy()
    return kept


def _lines(table: Any, marked: Mapping[str, NDArray[np.bool_]]) -> Iterator[str]:
    """Describe each cell that cannot be used, in the order of rows."""
    problems = [(int(row), name) for name, marks in marked.items() for row in np.flatnonzero(marks)]
    for row, name in sorted(problems):
        cell = table.column(name)[row].as_py()
        quoted = f" ('{cell[:40]}')" if isinstance(cell, str) else ""
        yield f"row {row}, column '{name}'{quoted}"
