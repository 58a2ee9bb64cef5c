"""Reads a user's files: images into bytes of one size, and tables, whose every used cell is checked."""

import contextlib
import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from metaloom.learners.errors import unknown
from metaloom.workers.data.base import DataError, some

NUMERIC = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
CSV, PARQUET, ARROW = (".csv", ".tsv", ".txt"), (".parquet", ".pq"), (".arrow", ".feather", ".ipc")
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def read_picture(source: Path | bytes, *, size: int, color: bool, where: str) -> NDArray[np.uint8]:
    """Return uint8 [1 or 3, size, size], resized without regard to proportions, on white where it is transparent.

    Args:
        source: An image file, or its content.
        size: Side in pixels.
        color: Three channels instead of one.
        where: How a DataError about a file that is no image, cut short or damaged names it.
    """
    from PIL import Image, ImageOps

    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(opened) as image:
            upright: Any = ImageOps.exif_transpose(image)
            if upright.mode == "F":
                raise ValueError("its pixels are floating-point numbers: save it with 8 or 16 bits")
            if upright.mode.startswith("I"):  # 16 bits: converting would clip, not scale
                upright = Image.fromarray((np.asarray(upright) // 256).astype(np.uint8))
            if upright.has_transparency_data:  # what is see-through has some colour too, often that of the strokes
                upright = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
            mode = "RGB" if color else "L"
            small = upright.convert(mode).resize((size, size), Image.Resampling.LANCZOS)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: not a readable image ({error})") from error
    pixels = np.asarray(small, dtype=np.uint8)
    return pixels.transpose(2, 0, 1) if color else pixels[None]


@dataclass(frozen=True)
class Columns:
    """The columns that were read of a table.

    Attributes:
        x: Features, float32 [rows, features].
        label: The label column, as read [rows]; None where it was not asked for.
        task: The task column as text [rows]; None where it was not asked for.
        features: Names of the features' columns.
        left_out: Names of the columns that are neither label nor task, and hold no numbers.
        skipped: One line for each cell whose row was left out.
    """

    x: NDArray[np.float32]
    label: Any
    task: Any
    features: tuple[str, ...]
    left_out: tuple[str, ...]
    skipped: tuple[str, ...]


def read_table(path: Path) -> Any:
    """Return the table as Arrow; raises DataError for a file that is absent, of an unknown ending, or unreadable."""
    if not path.is_file():
        raise DataError(f"tasks.path: there is no file {path}")
    ending = path.suffix.lower()
    try:
        if ending in CSV:
            from pyarrow import csv

            return csv.read_csv(path, parse_options=csv.ParseOptions(delimiter="\t" if ending == ".tsv" else ","))
        if ending in PARQUET:
            from pyarrow import parquet

            return parquet.read_table(path)
        if ending in ARROW:
            return _read_arrow(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a table ({error})") from error
    raise DataError(f"{path}: no table format ends in '{ending}' (allowed: {', '.join((*CSV, *PARQUET, *ARROW))})")


def read_columns(
    path: Path,
    *,
    label: str | None,
    task: str | None = None,
    features: Sequence[str] = (),
    skip_missing: bool = False,
    advice: str = "tasks.on_error: skip leaves such rows out",
    task_setting: str = "task",
) -> Columns:
    """Read and check the columns that are asked for.

    Args:
        path: The table.
        label: Name of the label column.
        task: Name of the task column.
        features: Names of the feature columns; none takes every column of numbers that is neither label nor task.
        skip_missing: Leave out rows with a cell that is missing, no number or infinite, instead of refusing the table.
        advice: The remedy that an error about such a cell names.
        task_setting: The setting of the tasks section that names the task column.

    Raises:
        DataError: A column is absent or not of numbers, or a cell is such; row and column are named.
    """
    table = read_table(path)
    for field, names in (("label", [label]), (task_setting, [task]), ("features", features)):
        for name in names:
            if name is not None and name not in table.column_names:
                raise DataError(f"tasks.{field}: {path}: " + unknown("column", name, table.column_names))
    given = [name for name in table.column_names if name not in (label, task)]
    read = ((name, _numbers(table.column(name))) for name in features or given)
    numbers = {name: column for name, column in read if column is not None}
    chosen = tuple(numbers)
    if strange := [name for name in features if name not in chosen]:
        kind = table.schema.field(strange[0]).type
        raise DataError(f"tasks.features: {path}: column '{strange[0]}' is {kind}, and a feature must be a number")
    if not chosen:
        raise DataError(f"tasks.features: {path} has no numeric column besides the label and the task")
    x = np.stack(list(numbers.values()), axis=1)
    bad = {name: ~np.isfinite(x[:, place]) for place, name in enumerate(chosen)}
    others = {name: table.column(name) for name in (label, task) if name is not None}
    for name, column in others.items():
        bad[name] = column.is_null(nan_is_null=True).to_numpy()
    problems = [(int(row), name) for name, marks in bad.items() for row in np.flatnonzero(marks)]
    lines = tuple(f"row {row}, column '{name}'{_quoted(table, name, row)}" for row, name in sorted(problems))
    if lines and not skip_missing:
        what = "a value that is missing, not a number or infinite"
        raise DataError(f"{path}: {what} in {some(lines)} (rows count from 0; {advice})")
    keep = ~np.any(list(bad.values()), axis=0)
    kept = {name: column.to_numpy()[keep] for name, column in others.items()}
    texts = None if task is None else kept[task].astype(str)
    left_out = () if features else tuple(name for name in given if name not in chosen)
    return Columns(x[keep], None if label is None else kept[label], texts, chosen, left_out, lines)


def _read_arrow(path: Path) -> Any:
    with pa.memory_map(str(path)) as source:
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:  # the stream format has no footer
            source.seek(0)
            return pa.ipc.open_stream(source).read_all()


def _numbers(column: Any) -> NDArray[np.float32] | None:
    """Return a column as float32, a cell that is missing or no number as NaN; None for a column not of numbers.

    One unreadable cell makes a reader take its whole column for text: text is a column of numbers where more than
    half of its cells are.
    """
    kind = column.type
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        if any(is_kind(kind) for is_kind in NUMERIC):
            return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float32)
        if not pa.types.is_string(kind) and not pa.types.is_large_string(kind):
            return None
        found = np.array([_number(cell) for cell in column.to_pylist()], dtype=np.float64).astype(np.float32)
    return found if 2 * np.isfinite(found).sum() > len(column) - column.null_count else None


def _number(cell: str | None) -> float:
    with contextlib.suppress(ValueError):
        return float(cell or "nan")
    return float("nan")


def _quoted(table: Any, name: str, row: int) -> str:
    cell = table.column(name)[row].as_py()
    return f" ('{cell[:40]}')" if isinstance(cell, str) else ""
