"""Looks at a user's data for ``metaloom data``: what is in a table or a folder of images, and what would be used."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray

from metaloom.dashboards.data_rows import ClassRow, ColumnRow, DataRow
from metaloom.learners.errors import unknown
from metaloom.learners.networks.tokens import TEXT
from metaloom.learners.task_kinds import REGRESSION
from metaloom.orchestrator.errors import TaskError
from metaloom.search_spaces.loading import preset_names
from metaloom.workers.data.base import DataError, some
from metaloom.workers.data.picture_files import class_files
from metaloom.workers.data.splits import split_folders
from metaloom.workers.data.table_columns import (
    CellRules,
    class_column,
    kept_cells,
    missing_labels,
    usable_columns,
)
from metaloom.workers.data.table_files import TextFormat, decimal_of, format_of, is_table, read_table
from metaloom.workers.data.table_kinds import NUMBER, Feature, NotAFeature, as_feature, is_text
from metaloom.workers.data.user_files import left_out

FEWEST_WORDS = 2  # of a cell on average, where a column holds sentences
MOST_ROWS = 1_000_000  # of a larger table the first are looked at
EXAMPLES, SAMPLED_IMAGES = 3, 200
DEFAULT_LABEL = "label"
HELD_OUT, MOST_WAYS, MOST_QUERIES = 0.2, 5, 15  # the defaults of the task sources' settings
GREY = ("1", "L", "LA", "I", "I;16", "F")  # Pillow's modes without colour
FEW_VALUES = 20  # distinct numbers of a label up to which they are taken for classes


def look(path: Path, *, label: str | None = None, separator: str | None = None, encoding: str | None = None) -> DataRow:
    """Return what is in a table or a folder of class folders.

    Args:
        path: The file or folder.
        label: The label's column in a table; None takes one that is called ``label``.
        separator: What stands between two cells of a CSV file; None finds it.
        encoding: Of a CSV file; None finds it.

    Raises:
        DataError: It cannot be read.
        TaskError: It is neither, or has no such column.
    """
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise TaskError(f"there is no file and no folder {path}{_similar_preset(path)}")
    if not is_table(path):
        read_table(path)  # names the endings that a table may have
    given = TextFormat(separator, None, encoding)
    try:
        given.check()
    except ValueError as error:
        raise TaskError(f"--{error}") from None
    return _table(path, label, given)


def _similar_preset(path: Path) -> str:
    names = preset_names() if len(path.parts) == 1 and not path.suffix else []
    return f", and {unknown('preset', str(path), names)}" if names else ""


def _table(path: Path, label: str | None, text_format: TextFormat) -> DataRow:
    table = read_table(path, as_text=[label or DEFAULT_LABEL], text_format=text_format)
    if label is not None and label not in table.column_names:
        raise TaskError(f"--label: {unknown('column', label, table.column_names)}")
    if not table.num_rows:
        raise DataError(f"{path}: the table has no row")
    notes, rows = list[str](), table.num_rows
    if rows > MOST_ROWS:
        notes.append(f"the first {MOST_ROWS} of {rows} rows are looked at")
        table = table.slice(0, MOST_ROWS)
    known = label or (DEFAULT_LABEL if DEFAULT_LABEL in table.column_names else None)
    features, unused = usable_columns(table, CellRules(leaves_out_numbering=True), (known,))
    reasons = {name: why for why, names in unused.items() for name in names}
    features, unused = usable_columns(table, CellRules(leaves_out_numbering=True), (known,))
    use = {one.name: one for one in features}
    reasons = {name: why for why, names in unused.items() for name in names}
    columns = tuple(_column(table, name, known, use.get(name), reasons.get(name)) for name in table.column_names)
    columns = _with_sentences(columns, table)
    if known is None:
        notes.append(f"no column is called '{DEFAULT_LABEL}': --label names it{_candidates(columns, table.num_rows)}")
    classes, tasks = ([], None) if known is None else _as_tasks(path, table, known, columns)
    if tasks is not None:
        given = {"separator": text_format.separator, "encoding": text_format.encoding}
        tasks |= {name: value for name, value in given.items() if value is not None}
    form = {name: value for name, value in vars(format_of(table)).items() if value is not None}
    return DataRow(
        path=str(path),
        kind="table",
        examples=rows,
        form=form,
        columns=columns,
        classes=tuple(classes),
        notes=tuple(notes),
        tasks=tasks,
    )


def _as_tasks(
    path: Path, table: Any, label: str, columns: Sequence[ColumnRow]
) -> tuple[list[ClassRow], dict[str, Any]]:
    """Return the classes of a label column, none of numbers, and a ``tasks`` section that reads the table."""
    classes = _classes(path, table, label, np.zeros(table.num_rows, dtype=bool))
    features = [_read(one.name, table) for one in columns if one.use == "feature"]
    unreadable = np.any([one.unusable for one in features if one is not None], axis=0)
    tasks: dict[str, Any] = {"source": "table", "path": str(path), "label": label}
    if _is_target(table, label, len(classes)):
        classes, tasks = [], tasks | {"kind": REGRESSION.name, "episodes": "single_task"}
    else:
        tasks |= _episodes(_classes(path, table, label, unreadable))
    if text := next((one for one in columns if one.use == TEXT), None):
        tasks |= {"source": TEXT, "text": text.name}
    if any(one is not None and one.missing.any() for one in features):
        tasks["missing"] = "median"
    if unreadable.any() or any(one.use in ("label", TEXT) and one.missing for one in columns):
        tasks["on_error"] = "skip"
    return classes, tasks


def _with_sentences(columns: tuple[ColumnRow, ...], table: Any) -> tuple[ColumnRow, ...]:
    """Mark the column of sentences in a table without numbers: texts with white space, most of them different."""
    if any(one.use == "feature" for one in columns):
        return columns
    for place, one in enumerate(columns):
        cells = table.column(one.name).slice(0, 100)
        if one.use == "left out" and is_text(cells.type) and 2 * one.distinct > table.num_rows:
            held = [str(cell).split() for cell in cells.to_pylist() if cell]
            if held and sum(map(len, held)) >= FEWEST_WORDS * len(held):
                return (*columns[:place], replace(one, use=TEXT, why=None), *columns[place + 1 :])
    return columns


def _column(table: Any, name: str, label: str | None, feature: Feature | None, why: str | None) -> ColumnRow:
    column = table.column(name)
    read = feature or _read(name, table)
    missing = column.null_count if read is None else int((read.missing | read.unusable).sum())
    nested = pa.types.is_nested(column.type)
    distinct = len(set(map(str, column.to_pylist()))) if nested else pc.count_distinct(column).as_py()
    first = [str(cell) for cell in column.slice(0, 100).to_pylist() if cell is not None and cell != ""]
    return ColumnRow(
        name=name,
        type=str(column.type) if read is None else read.described,
        distinct=distinct,
        missing=missing,
        examples=tuple(text[:30] for text in dict.fromkeys(first))[:EXAMPLES],
        use="label" if name == label else "left out" if feature is None else "feature",
        why=None if name == label or feature is not None else why,
    )


def _read(name: str, table: Any) -> Feature | None:
    try:
        return as_feature(name, table.column(name), decimal_of(table))
    except NotAFeature:
        return None


def _candidates(columns: Sequence[ColumnRow], rows: int) -> str:
    """Name the columns that could be labels: those of few values."""
    few = [one for one in columns if 1 < one.distinct <= rows // 2]
    found = [f"'{one.name}' ({one.distinct} values)" for one in sorted(few, key=lambda one: one.distinct)]
    return f", such as {some(found)}" if found else ""


def _classes(path: Path, table: Any, label: str, skipped: NDArray[np.bool_]) -> list[ClassRow]:
    column = class_column(path, table, label, "label")
    labels = kept_cells(column, ~(missing_labels(column) | skipped)).astype(str)
    names, counts = np.unique(labels, return_counts=True)
    return [ClassRow(name=str(name), examples=int(count)) for name, count in zip(names, counts, strict=True)]


def _is_target(table: Any, label: str, distinct: int) -> bool:
    """Return whether a label column is of numbers, too many to be classes."""
    read = _read(label, table)
    return read is not None and read.kind == NUMBER and distinct > max(FEW_VALUES, table.num_rows // 4)


def _episodes(classes: Sequence[ClassRow]) -> dict[str, Any]:
    """Return settings of few-shot episodes that these classes suffice for; otherwise those of a single task."""
    ways = min(MOST_WAYS, round(HELD_OUT * len(classes)))
    smallest = min((one.examples for one in classes), default=0)
    if ways < 2 or smallest < 2:
        return {"episodes": "single_task"}
    return {"ways": ways, "shots": 1, "queries": min(MOST_QUERIES, smallest - 1)}


def _folder(folder: Path) -> DataRow:
    splits = split_folders(folder) or {"": folder}
    files = {(split, name): found for split, place in splits.items() for name, found in class_files(place).items()}
    texts = list(chain.from_iterable(found.texts() for found in files.values()))
    paths = list(map(Path, texts))
    endings = Counter(path.suffix.lower() for path in paths)
    sizes, modes, unreadable = _sampled(paths[:: max(1, len(paths) // SAMPLED_IMAGES)])
    notes = list(left_out(folder, texts))
    notes += [f"{len(unreadable)} of the sampled images cannot be read: {some(unreadable)}"] if unreadable else []
    classes = [ClassRow(name=name, examples=len(found)) for (_, name), found in files.items()]
    tasks = {"source": "folder", "path": str(folder), "color": any(mode not in GREY for mode in modes)}
    if len(splits) > 1:
        counts = Counter(split for split, _ in files)
        notes.append(f"folders of splits: {', '.join(f'{counts[split]} classes in {split}' for split in splits)}")
    return DataRow(
        path=str(folder),
        kind="folder",
        examples=len(paths),
        form={"endings": dict(endings), "sizes": sizes, "modes": modes},
        columns=(),
        classes=tuple(classes),
        notes=tuple(notes),
        tasks=tasks | _episodes(classes),
    )


def _sampled(paths: Sequence[Path]) -> tuple[dict[str, int], dict[str, int], list[str]]:
    """Return sizes and modes of images, with their counts, the most frequent first; and which cannot be opened."""
    from PIL import Image

    sizes, modes, unreadable = Counter[str](), Counter[str](), []
    for path in paths:
        try:
            with Image.open(path) as image:
                sizes[f"{image.width} x {image.height}"] += 1
                modes[image.mode] += 1
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            unreadable.append(str(path))
    return dict(sizes.most_common()), dict(modes.most_common()), unreadable


def yaml_line(tasks: Mapping[str, Any]) -> str:
    """Return a ``tasks`` section on one line of an experiment file."""
    return "tasks: " + yaml.safe_dump(dict(tasks), default_flow_style=True, sort_keys=False, width=10_000).strip()
