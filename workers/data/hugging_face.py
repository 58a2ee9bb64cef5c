"""Data sets of Hugging Face, as objects or as folders that ``save_to_disk`` wrote; their package is not needed.

The Arrow schema of such a data set says which column is an image and which one a class, with the classes' names.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from metaloom.learners.errors import unknown
from metaloom.workers.data.base import DataError
from metaloom.workers.data.given_arrays import GivenArrays, check_arrays
from metaloom.workers.data.user_files import read_picture
from metaloom.workers.data.user_single_task import part_named

METADATA = b"huggingface"
SPLIT = "split"  # the column that says the part, of a data set with splits


@dataclass(frozen=True)
class SavedData:
    """A data set: one table, or one of each split.

    Attributes:
        tables: By the split's name; empty where there are none.
        where: How errors name it.
    """

    tables: Mapping[str, Any]
    where: str

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a folder that ``save_to_disk`` wrote; raises DataError if it is none."""
        try:
            if (folder / "dataset_dict.json").is_file():
                splits = json.loads((folder / "dataset_dict.json").read_text())["splits"]
                return cls({name: _read(folder / name) for name in splits}, str(folder))
            return cls({"": _read(folder)}, str(folder))
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            advice = "give a file of numpy (.npz), or a folder that Hugging Face's save_to_disk wrote"
            raise DataError(f"tasks.path: {folder}: no saved data set ({error}); {advice}") from error

    @classmethod
    def of(cls, given: Any) -> Self:
        """Take a data set, or a mapping of several by split, as an object."""
        splits = given if isinstance(given, Mapping) else {"": given}
        return cls({str(name): one.with_format("arrow")[:] for name, one in splits.items()}, "the data set")

    @property
    def features(self) -> Mapping[str, Any]:
        """The columns' declarations; empty for an Arrow table that has none."""
        metadata = next(iter(self.tables.values())).schema.metadata or {}
        found: dict[str, Any] = json.loads(metadata.get(METADATA, b"{}")).get("info", {}).get("features", {})
        return found

    @property
    def image(self) -> str | None:
        """The column of images; None where there is none."""
        return next((name for name, one in self.features.items() if one.get("_type") == "Image"), None)

    def label(self, asked: str | None = None) -> str:
        """Return the label's column: the one asked for, the one of classes, or ``label``; raises DataError."""
        columns = next(iter(self.tables.values())).column_names
        classes = [name for name, one in self.features.items() if one.get("_type") == "ClassLabel"]
        name = asked or (classes[0] if len(classes) == 1 else "label")
        if name not in columns:
            raise DataError(f"tasks.label: {self.where}: {unknown('column', name, columns)}")
        return name

    def images(self, *, size: int, color: bool, label: str | None = None) -> GivenArrays:
        """Decode the images; raises DataError where there are none, or one is unreadable."""
        column = self.image
        if column is None:
            advice = "write it as Parquet, and give it as tasks.source: table"
            raise DataError(f"tasks.path: {self.where} has no column of images; {advice}")
        pictures, labels, parts = list[NDArray[np.uint8]](), list[Any](), list[str]()
        for split, table in self.tables.items():
            cells = table.column(column).to_pylist()
            for row, cell in enumerate(cells):
                where = f"{self.where}: {f'{split} ' if split else ''}row {row}, column '{column}'"
                pictures.append(_picture(cell, size=size, color=color, where=where))
            labels += self._named(table, self.label(label))
            parts += [part_named(split, f"{self.where}: split")] * len(cells) if split else []
        return check_arrays(np.stack(pictures), np.array(labels), parts or None, has_classes=True)

    def table(self, label: str | None) -> Any:
        """Return one Arrow table, with the classes' names, and a column ``split`` where there are splits."""
        name, tables = self.label(label), []
        for split, table in self.tables.items():
            place = table.column_names.index(name)
            if self.features.get(name, {}).get("_type") == "ClassLabel":
                table = table.set_column(place, name, pa.array(self._named(table, name)))
            tables.append(table.append_column(SPLIT, pa.array([split] * len(table))) if split else table)
        return pa.concat_tables([table.replace_schema_metadata(None) for table in tables])

    def _named(self, table: Any, label: str) -> list[Any]:
        cells, names = table.column(label).to_pylist(), self.features.get(label, {}).get("names")
        if not names:
            return list(cells)
        # a missing class is None, or -1 by the convention of data sets without labels
        return [names[cell] if cell is not None and 0 <= cell < len(names) else None for cell in cells]


def _read(folder: Path) -> Any:
    names = [one["filename"] for one in json.loads((folder / "state.json").read_text())["_data_files"]]
    tables = []
    for name in names:
        with pa.memory_map(str(folder / Path(name).name)) as source:
            tables.append(pa.ipc.open_stream(source).read_all())
    return pa.concat_tables(tables)


def _picture(cell: Any, *, size: int, color: bool, where: str) -> NDArray[np.uint8]:
    content, path = ("", "") if cell is None else (cell.get("bytes"), cell.get("path"))
    if not content and not path:
        raise DataError(f"{where}: no image")
    source = content if isinstance(content, bytes) and content else Path(str(path))
    return read_picture(source, size=size, color=color, where=where)
