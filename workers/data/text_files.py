"""Reads a user's texts and labels: a table, a JSON file, or a folder with a file for each part."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from metaloom.learners.errors import unknown
from metaloom.workers.data.base import DataError, some
from metaloom.workers.data.table_columns import class_column
from metaloom.workers.data.table_files import TextFormat, is_table, read_table
from metaloom.workers.data.user_files import is_hidden
from metaloom.workers.data.user_single_task import part_called

T = TypeVar("T")
JSON, LINES = ".json", ".jsonl"
WANTED = 'a list of {"text": ..., "label": ...} or [text, label], or an object with such a list for each part'


@dataclass(frozen=True)
class TextColumns:
    """What is read of each row.

    Attributes:
        text: The column of the text.
        label: That of the label.
        beside: Further columns, by the setting that names each.
        may_lack_label: Rows may have no label, and a file no such column.
        text_format: How a CSV file is written.
    """

    text: str
    label: str
    beside: Mapping[str, str] = field(default_factory=dict)
    may_lack_label: bool = False
    text_format: TextFormat | None = None


@dataclass(frozen=True)
class ReadTexts:
    """Texts with their labels, row by row.

    Attributes:
        texts: The texts; None where there is none.
        labels: Likewise.
        parts: The part that each row belongs to, as the file or folder names it; empty where it names none.
        places: How an error names each row.
        beside: Further columns, by the setting that names each.
        documents: The objects of a JSON file that are no parts, by key.
    """

    texts: list[str | None]
    labels: list[str | None]
    parts: list[str]
    places: list[str]
    beside: Mapping[str, list[str | None]] = field(default_factory=dict)
    documents: Mapping[str, Any] = field(default_factory=dict)

    def named(self, file: Path) -> "ReadTexts":
        """Return the rows of one file of several: its name is their part, where it names none."""
        parts, places = [part or file.stem for part in self.parts], [f"{file.name}, {one}" for one in self.places]
        return replace(self, parts=parts, places=places)

    def kept(self, rows: Sequence[int]) -> "ReadTexts":
        """Return some of the rows."""

        def taken(column: Sequence[T]) -> list[T]:
            return [column[row] for row in rows]

        beside = {setting: taken(column) for setting, column in self.beside.items()}
        texts, labels, parts, places = taken(self.texts), taken(self.labels), taken(self.parts), taken(self.places)
        return ReadTexts(texts, labels, parts, places, beside, self.documents)


def files_of(path: Path) -> list[Path]:
    """Return the files of texts at a path; raises DataError if there are none."""
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if one.is_file() and _is_texts(one) and not is_hidden(one.name))
        if not files:
            raise DataError(f"tasks.path: {path} has no file of texts (.csv, .tsv, .parquet, .json or .jsonl)")
        return files
    if not path.is_file():
        raise DataError(f"tasks.path: there is no file and no folder {path}")
    if not _is_texts(path):
        raise DataError(f"tasks.path: {path}: texts are read from tables (.csv, .tsv, .parquet), .json and .jsonl")
    return [path]


def _is_texts(path: Path) -> bool:
    return is_table(path) or path.suffix.lower() in (JSON, LINES)


def read_texts(path: Path, columns: TextColumns) -> ReadTexts:
    """Read all rows of a file, or of the files of a folder, whose names are then parts; raises DataError."""
    files = files_of(path)
    found = [_read(file, columns) for file in files]
    if path.is_dir():
        both = zip(found, files, strict=True)
        found = [one.named(file) for one, file in both]
    texts, labels, parts, places = (
        [cell for one in found for cell in getattr(one, column)] for column in ("texts", "labels", "parts", "places")
    )
    if not texts:
        raise DataError(f"{path}: no row in it")
    beside = {setting: [cell for one in found for cell in one.beside[setting]] for setting in columns.beside}
    documents = {key: value for one in found for key, value in one.documents.items()}
    return ReadTexts(texts, labels, parts, places, beside, documents)


def chosen_parts(read: ReadTexts, parts: Sequence[str], where: Path) -> ReadTexts:
    """Return the rows of the parts that are asked for, all where none is; raises DataError for an absent one."""
    if not parts:
        return read
    there = sorted(set(read.parts) - {""})
    for name in parts:
        if name not in there:
            raise DataError(f"tasks.parts: {where}: {unknown('part', name, there)}")
    return read.kept([row for row, part in enumerate(read.parts) if part in parts])


def usable(read: ReadTexts, columns: TextColumns, *, skip: bool, where: Path) -> tuple[ReadTexts, tuple[str, ...]]:
    """Return the rows with a text and a label, and a line for each other one; raises DataError without ``skip``."""
    given = ((columns.text, read.texts), *(() if columns.may_lack_label else ((columns.label, read.labels),)))
    empty = [(row, name) for row in range(len(read.texts)) for name, cells in given if cells[row] is None]
    lines = tuple(f"{read.places[row]}, column '{name}'" for row, name in empty)
    if lines and not skip:
        advice = "give texts" if columns.may_lack_label else "tasks.on_error: skip leaves such rows out"
        raise DataError(f"{where}: nothing stands in {some(lines)} (rows count from 0; {advice})")
    bad = {row for row, _ in empty}
    if len(bad) == len(read.texts):
        raise DataError(f"{where}: no row is left: nothing stands in {some(lines)}")
    return (read.kept([row for row in range(len(read.texts)) if row not in bad]) if bad else read), lines


def part_of_each(read: ReadTexts, column: str | None) -> list[str] | None:
    """Return the part (train, meta, validation or test) of each row; None where none is named.

    Raises DataError for a name that is none of these.
    """
    named = list(read.beside["split"]) if column is not None else list(read.parts)
    if column is None and not any(named):
        return None
    spelt = {name: part_called(str(name or "")) for name in set(named)}
    for name, part in spelt.items():
        if part is None:
            what = f"tasks.split: column '{column}'" if column is not None else "tasks.parts"
            raise DataError(f"{what}: {unknown('part', str(name or ''), ('train', 'meta', 'validation', 'test'))}")
    return [str(spelt[name]) for name in named]


def _read(file: Path, columns: TextColumns) -> ReadTexts:
    if is_table(file):
        return _of_table(file, columns)
    parts, documents = _json_parts(file)
    rows = [(part, number, row) for part, held in parts.items() for number, row in enumerate(held)]
    places = [f"{part + ', ' if part else ''}row {number}" for part, number, _ in rows]
    names = (columns.text, columns.label, *columns.beside.values())
    cells = [_cells(row, names, f"{file}: {part + ', ' if part else ''}row {number}") for part, number, row in rows]
    for place, name in enumerate(names if cells else ()):
        if all(one[place] is None for one in cells) and not (place == 1 and columns.may_lack_label):
            _absent(file, columns, name, [row for _, _, row in rows])
    texts, labels, *beside = ([one[place] for one in cells] for place in range(len(names)))
    further = dict(zip(columns.beside, beside, strict=True))
    return ReadTexts(texts, labels, [part for part, _, _ in rows], places, further, documents)


def _absent(file: Path, columns: TextColumns, name: str, rows: Sequence[Any]) -> None:
    """Refuse a key that no row has; raises DataError with the nearest one."""
    keys = dict.fromkeys(key for row in rows if isinstance(row, Mapping) for key in row)
    setting = {columns.text: "text", columns.label: "label", **{one: s for s, one in columns.beside.items()}}[name]
    raise DataError(f"tasks.{setting}: {file}: {unknown('column', name, list(keys) or ['text', 'label'])}")


def _of_table(file: Path, columns: TextColumns) -> ReadTexts:
    names = {"text": columns.text, "label": columns.label, **columns.beside}
    table = read_table(file, as_text=list(names.values()), text_format=columns.text_format)
    found: dict[str, list[str | None]] = {}
    for setting, name in names.items():
        if name in table.column_names:
            column = class_column(file, table, name, setting)
            found[setting] = [_text_of(cell) for cell in column.to_pylist()]
        elif setting == "label" and columns.may_lack_label:
            found[setting] = [None] * table.num_rows
        else:
            raise DataError(f"tasks.{setting}: {file}: {unknown('column', name, table.column_names)}")
    places = [f"row {row}" for row in range(table.num_rows)]
    beside = {setting: found[setting] for setting in columns.beside}
    return ReadTexts(found["text"], found["label"], [""] * table.num_rows, places, beside)


def _text_of(cell: Any) -> str | None:
    """Return a cell as text; None where nothing stands in it."""
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return None
    text = str(cell)
    return text if text.strip() else None


def _json_parts(file: Path) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Return the rows of each part of a JSON file, and its objects that are no parts; raises DataError."""
    try:
        content = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() == LINES:
            return {"": [json.loads(line) for line in content.splitlines() if line.strip()]}, {}
        document = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: not readable as JSON ({error}); give {WANTED}") from error
    if isinstance(document, list):
        return {"": document}, {}
    if not isinstance(document, Mapping):
        raise DataError(f"{file}: got {type(document).__name__}; give {WANTED}")
    parts = {str(key): value for key, value in document.items() if isinstance(value, list)}
    if not parts:
        raise DataError(f"{file}: none of its keys ({some(list(document))}) has a list of rows; give {WANTED}")
    return parts, {str(key): value for key, value in document.items() if not isinstance(value, list)}


def _cells(row: Any, names: Sequence[str], where: str) -> list[str | None]:
    """Return the cells of a row of JSON; raises DataError for one that is neither an object nor a pair."""
    if isinstance(row, Mapping):
        cells = [row.get(name) for name in names]
    elif isinstance(row, list) and len(row) == 2:
        cells = [*row, *([None] * (len(names) - 2))]
    else:
        kind = f"a list of {len(row)}" if isinstance(row, list) else type(row).__name__
        raise DataError(f"{where} is {kind}; give {WANTED}")
    if wrong := next((one for one in cells if isinstance(one, Mapping | list)), None):
        raise DataError(f"{where} holds {type(wrong).__name__} where a text or a label stands; give {WANTED}")
    return [_text_of(cell) for cell in cells]


def lists_of_document(documents: Mapping[str, Any], key: str, where: Path) -> dict[str, list[str]]:
    """Return an object of a JSON file as lists of names; raises DataError if it has no such object."""
    lists = documents.get(key)
    if not isinstance(lists, Mapping) or not all(isinstance(one, list) for one in lists.values()):
        able = [name for name, one in documents.items() if isinstance(one, Mapping)]
        raise DataError(f"{where}: {unknown('object of lists', key, able)}")
    return {str(name): [str(one) for one in names] for name, names in lists.items()}


def groups_of_documents(documents: Mapping[str, Any], names: Sequence[str]) -> Iterator[dict[str, list[str]]]:
    """Yield the objects of a JSON file that say what belongs to each of these names."""
    for one in documents.values():
        if isinstance(one, Mapping) and set(names) <= set(one) and all(isinstance(each, list) for each in one.values()):
            yield {str(name): [str(member) for member in members] for name, members in one.items()}
