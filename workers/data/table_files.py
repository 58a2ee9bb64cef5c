"""Reads a file as an Arrow table: Parquet, Arrow, and CSV of any usual separator, encoding and compression."""

import codecs
import contextlib
import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from metaloom.learners.errors import shown
from metaloom.workers.data.base import DataError

CSV, PARQUET, ARROW = (".csv", ".tsv", ".txt"), (".parquet", ".pq"), (".arrow", ".feather", ".ipc")
TABLES = (*CSV, *PARQUET, *ARROW)
COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}  # of a CSV file
TAB = "tab"
UNNAMED = "Unnamed: "  # as pandas calls a column without a name
SEPARATORS = {",": "comma", ";": "semicolon", "\t": TAB, "|": "bar"}
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_MARKS = {  # that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_FOUND = "metaloom."  # begins the names of what is noted in a table's metadata
BLOCK_BYTES = 16 << 20  # a row may be as long
_SAMPLED_BYTES, _SAMPLED_ROWS = 1 << 18, 100
_COMMA_NUMBER, _POINT_NUMBER = (re.compile(rf"\s*[+-]?\d*{sign}\d+([eE][+-]?\d+)?\s*") for sign in (",", r"\."))
_THOUSANDS = re.compile(r"\s*[+-]?\d{1,3}(,\d{3})+\s*")


@dataclass(frozen=True)
class TextFormat:
    """How a text file stores its table; None is found from the file.

    Attributes:
        separator: What stands between two cells: one character, or ``tab``.
        decimal: The sign before the decimals, ``.`` or ``,``.
        encoding: Python's name of the encoding; found are UTF-8, and UTF-16 by its mark or its zeros.
    """

    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None

    def check(self) -> None:
        """Raise ValueError, with the field, for a separator of several characters and an encoding that is none."""
        if (
            self.separator is not None
            and self.separator != TAB
            and (len(self.separator) != 1 or self.separator in '\r\n"')
        ):
            raise ValueError(f"separator: got {shown(self.separator)}; allowed: one character, or {TAB}")
        if self.encoding is not None:
            try:
                " ".encode(self.encoding)
            except LookupError:
                allowed = "a name of Python's encodings, such as utf-8, latin-1 or cp1252"
                raise ValueError(f"encoding: got {shown(self.encoding)}; allowed: {allowed}") from None


def format_of(table: Any) -> TextFormat:
    """Return how the CSV file of a table was written; empty for a table of another file."""
    held = table.schema.metadata or {}
    found = (held.get(f"{_FOUND}{name}".encode()) for name in ("separator", "decimal", "encoding"))
    return TextFormat(*(None if one is None else one.decode() for one in found))


def decimal_of(table: Any) -> str:
    """Return the decimal sign of the numbers in a table that was read."""
    return format_of(table).decimal or "."


def is_table(path: Path) -> bool:
    """Return whether a file's ending is one of a table."""
    return _ending(path) in TABLES


def _ending(path: Path) -> str:
    """Return the ending that names the format, without that of a compression."""
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return name.suffix.lower()


def read_table(path: Path, *, as_text: Sequence[str] = (), text_format: TextFormat | None = None) -> Any:
    """Return the table as Arrow.

    Args:
        path: The file.
        as_text: Columns of a CSV file that stay the text that stands there, whatever they look like.
        text_format: How a CSV file is written; None finds all of it.

    Raises:
        DataError: The file is absent, of an unknown ending, unreadable, or has two columns of one name.
    """
    if not path.is_file():
        raise DataError(f"tasks.path: there is no file {path}")
    ending = _ending(path)
    if ending not in TABLES:
        endings = ", ".join((*TABLES, *(f".csv{more}" for more in COMPRESSED)))
        raise DataError(f"{path}: no table format ends in '{path.suffix.lower()}' (allowed: {endings})")
    try:
        if ending in CSV:
            table = _read_csv(path, as_text, text_format or TextFormat())
        elif ending in PARQUET:
            from pyarrow import parquet

            with parquet.ParquetFile(path) as file:
                table = file.read()
        else:
            table = _read_arrow(path)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as a table ({error})") from error
    return _with_distinct_names(path, table)


def _with_distinct_names(path: Path, table: Any) -> Any:
    """Return the table with numbers for its unnamed columns, if it has several; raises DataError for two of a name."""
    if twice := [name for name, count in Counter(table.column_names).items() if count > 1 and name.strip()]:
        places = [str(place) for place, name in enumerate(table.column_names, start=1) if name == twice[0]]
        raise DataError(
            f"{path}: {len(places)} columns are named '{twice[0]}' (columns {', '.join(places)}, counted from 1): "
            f"rename them so that each name stands once"
        )
    names = [name if name.strip() else f"{UNNAMED}{place}" for place, name in enumerate(table.column_names)]
    several = sum(not name.strip() for name in table.column_names) > 1
    return table.rename_columns(names) if several else table


def _read_arrow(path: Path) -> Any:
    with pa.memory_map(str(path)) as source:
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:  # the stream format has no footer
            source.seek(0)
            return pa.ipc.open_stream(source).read_all()


def _read_csv(path: Path, as_text: Sequence[str], given: TextFormat) -> Any:
    content, encoding = text_content(path, given.encoding)
    found = found_format(content, given, is_tabbed=_ending(path) == ".tsv")
    ragged: list[Any] = []
    try:
        # Arrow's threads let go of what they have read a little later, which aborts a process that ends meanwhile.
        table = _parsed(content, found, as_text, ragged, is_threaded=len(content) > BLOCK_BYTES)
        _check_quotes(path, content, table)
        told = {"separator": found.separator, "decimal": found.decimal, "encoding": encoding}
        return table.replace_schema_metadata({f"{_FOUND}{name}": str(value) for name, value in told.items()})
    except pa.ArrowInvalid:
        if not ragged:
            raise
    with contextlib.suppress(pa.ArrowInvalid):
        _parsed(content, found, as_text, ragged, is_threaded=False)  # threads do not number the rows
    odd = ragged[-1]
    raise DataError(
        f"{path}: row {odd.number - 2} has {odd.actual_columns} cells where the header has {odd.expected_columns} "
        f"({odd.text[:60]!r}; rows count from 0). The separator was taken to be a {_called(found.separator)}; "
        f"tasks.separator names another one"
    )


def _check_quotes(path: Path, content: bytes, table: Any) -> None:
    """Refuse a quotation mark that is never closed: the rest of the file would be one cell; raises DataError."""
    if content.count(b'"') % 2 == 0 or not table.num_rows:
        return
    last = table.slice(table.num_rows - 1).to_pylist()[0]
    if open_cell := next((name for name, cell in last.items() if isinstance(cell, str) and "\n" in cell), None):
        raise DataError(
            f"{path}: a quotation mark in row {table.num_rows - 1}, column '{open_cell}' is never closed "
            "(rows count from 0)"
        )


def _parsed(content: bytes, found: TextFormat, as_text: Sequence[str], ragged: list[Any], *, is_threaded: bool) -> Any:
    """Parse CSV; rows of another number of cells than the header's are added to ``ragged``, and refused."""
    from pyarrow import csv as arrow_csv

    def refuse(row: Any) -> str:
        ragged.append(row)
        return "error"

    return arrow_csv.read_csv(
        pa.BufferReader(content),
        arrow_csv.ReadOptions(use_threads=is_threaded, block_size=BLOCK_BYTES),
        arrow_csv.ParseOptions(delimiter=found.separator, newlines_in_values=True, invalid_row_handler=refuse),
        arrow_csv.ConvertOptions(column_types=dict.fromkeys(as_text, pa.string()), decimal_point=found.decimal),
    )


def _called(separator: str | None) -> str:
    return SEPARATORS.get(str(separator), repr(separator))


def text_content(path: Path, encoding: str | None = None) -> tuple[bytes, str]:
    """Return a text file's content in UTF-8, without a byte order mark, and the encoding that it was in.

    It may be compressed. Raises DataError, with row and column, if it is not in that encoding; OSError if the
    compressed data are damaged.
    """
    content = path.read_bytes()
    kind = next((kind for magic, kind in _MAGIC.items() if content.startswith(magic)), None)
    if kind is not None:
        content = pa.CompressedInputStream(pa.BufferReader(content), kind).read()
    mark = next((mark for mark in _MARKS if content.startswith(mark)), b"")
    found = _MARKS.get(mark) or encoding or _unmarked(content)
    try:
        text = content[len(mark) :].decode(found)
    except UnicodeDecodeError as error:
        place = _place(content[len(mark) : len(mark) + error.start + 1].decode("latin-1"))
        byte = content[len(mark) + error.start]
        raise DataError(
            f"{path}: the byte 0x{byte:02x} in {place} is no text in {found.upper()} (rows count from 0). Save the "
            f"file as UTF-8, or name its encoding, such as tasks.encoding: latin-1"
        ) from error
    return (content[len(mark) :] if found == "utf-8" else text.encode("utf-8")), found


def _unmarked(content: bytes) -> str:
    """Return the encoding of a file without a mark: UTF-16 where every other byte is 0, otherwise UTF-8."""
    start = content[:64]
    if len(start) > 1 and not any(start[1::2]) and any(start[::2]):
        return "utf-16-le"
    return "utf-16-be" if len(start) > 1 and not any(start[::2]) and any(start[1::2]) else "utf-8"


def _place(text: str) -> str:
    """Return row and column of the last character of the beginning of a CSV file."""
    separator = found_format(text.encode("utf-8"), TextFormat(), is_tabbed=False).separator
    try:
        records = list(csv.reader(io.StringIO(text, newline=""), delimiter=str(separator)))
    except csv.Error:
        return "an unreadable cell"
    header, column = records[0], len(records[-1]) - 1
    if len(records) == 1:
        return f"the header, column {column + 1}"
    name = header[column] if column < len(header) else ""
    return f"row {len([one for one in records if one]) - 2}, column '{name}'"


def found_format(content: bytes, given: TextFormat, *, is_tabbed: bool) -> TextFormat:
    """Return separator and decimal sign as given, or as found in the first rows of a CSV file in UTF-8.

    The separator that divides the header and all rows into the same number of cells, at least 2, is taken; of
    several the one with the most cells.
    """
    default = "\t" if is_tabbed else ","
    sample = content[:_SAMPLED_BYTES].decode("utf-8", errors="ignore")
    if len(content) > _SAMPLED_BYTES:
        sample = sample[: sample.rfind("\n") + 1]
    separator = "\t" if given.separator == TAB else given.separator
    if separator is None:
        order = [default, *(one for one in SEPARATORS if one != default)]
        separator = max(order, key=lambda one: _cells(_rows(sample, one)))  # the first of equals
    return TextFormat(separator, given.decimal or _decimal(_rows(sample, separator)[1:], separator), given.encoding)


def _rows(sample: str, separator: str) -> list[list[str]]:
    rows: list[list[str]] = []
    with contextlib.suppress(csv.Error):
        for row in csv.reader(io.StringIO(sample, newline=""), delimiter=separator):
            rows += [row] if row else []
            if len(rows) > _SAMPLED_ROWS:
                break
    return rows


def _cells(rows: list[list[str]]) -> tuple[int, int]:
    """Return how many cells all rows have, 0 if they differ or have one alone; and how many the header has."""
    counts = {len(row) for row in rows}
    return max(counts) if len(counts) == 1 and counts != {1} else 0, len(rows[0]) if rows else 0


def _decimal(rows: list[list[str]], separator: str) -> str:
    """Return the decimal sign: a comma where cells are numbers by it, and none is by a point."""
    cells = [cell for row in rows for cell in row]
    by_comma = [cell for cell in cells if _COMMA_NUMBER.fullmatch(cell)]
    if not by_comma or any(_POINT_NUMBER.fullmatch(cell) for cell in cells):
        return "."
    in_thousands = separator == "," and all(_THOUSANDS.fullmatch(cell) for cell in by_comma)
    return "." if in_thousands else ","
