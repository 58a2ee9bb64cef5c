"""Reads the files of time-series archives: ``.ts``, and ``.tsv``, ``.csv`` or ``.txt`` with the label first.

A series has as many steps as its line has values. A value that is missing (``?``, ``NaN`` or nothing) is a missing one
wherever it stands: the length of a series is never guessed from missing values at its end.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metaloom.learners.errors import unknown
from metaloom.workers.data.base import DataError
from metaloom.workers.data.labels import as_known

Values = NDArray[np.float64]
MISSING = ("?", "", "nan")
ENDINGS = (".ts", ".tsv", ".csv", ".txt")  # of a set's files; of several the first one is read
TRUE = "true"


@dataclass
class SeriesFile:
    """What one file holds.

    Attributes:
        series: Each [channels, length], NaN where a value is missing.
        labels: As they are written.
        classes: The classes in the order of the file's head; empty where it has none.
    """

    series: list[Values] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = ()


def read_series(path: Path) -> SeriesFile:
    """Read a file of labelled series; raises DataError, which names the file and the line."""
    try:
        with path.open(encoding="utf-8-sig") as lines:
            numbered = enumerate(lines, start=1)
            found = _read_ts(path, numbered) if path.suffix.lower() == ".ts" else _read_rows(path, numbered)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"tasks.path: {path}: cannot be read ({error})") from error
    if not found.series:
        raise DataError(f"tasks.path: {path}: holds no series")
    return found


def _read_ts(path: Path, lines: Iterator[tuple[int, str]]) -> SeriesFile:
    head = _read_head(path, lines)
    found = SeriesFile(classes=_classes_of(path, head))
    channels, steps = _number(path, head, "dimensions"), _number(path, head, "serieslength")
    equal = head.get("equallength", (0, ""))[1].lower() == TRUE
    for number, line in lines:
        if not (text := line.strip()) or text.startswith(("#", "%")):
            continue
        at = f"tasks.path: {path}: line {number}"
        *dimensions, label = text.split(":")
        one = _channels(at, dimensions)
        if len(one) != (channels := channels or len(one)):
            raise DataError(f"{at}: {len(one)} channels, and {channels} were expected")
        steps = steps or (one.shape[1] if equal else 0)
        if equal and one.shape[1] != steps:
            raise DataError(f"{at}: {one.shape[1]} steps, and {steps} were expected, since the head says @equalLength")
        found.series.append(one)
        found.labels.append(_known(at, label.strip(), found.classes))
    return found


def _read_head(path: Path, lines: Iterator[tuple[int, str]]) -> Mapping[str, tuple[int, str]]:
    """Read up to ``@data``: each entry's name in small letters, with its line and its text."""
    head: dict[str, tuple[int, str]] = {}
    for number, line in lines:
        text = line.strip()
        if not text or text.startswith(("#", "%")):
            continue
        if not text.startswith("@"):
            raise DataError(f"tasks.path: {path}: line {number}: a series before the line @data")
        name, _, value = text[1:].partition(" ")
        if name.lower() == "data":
            return head
        head[name.lower()] = (number, value.strip())
    raise DataError(f"tasks.path: {path}: no line @data")


def _classes_of(path: Path, head: Mapping[str, tuple[int, str]]) -> tuple[str, ...]:
    at = f"tasks.path: {path}"
    for name, told in (("timestamps", "values without times are read"), ("targetlabel", "series have classes here")):
        number, value = head.get(name, (0, ""))
        if value.lower().startswith(TRUE):
            raise DataError(f"{at}: line {number}: @{name} {value}: {told}; give another file")
    number, value = head.get("classlabel", (0, ""))
    given, *classes = value.split() or [""]
    if given.lower() != TRUE or not classes:
        raise DataError(f"{at}: no line '@classLabel true ...' with the names of the classes")
    if len(set(classes)) < len(classes):
        raise DataError(f"{at}: line {number}: @classLabel names a class twice")
    return tuple(classes)


def _number(path: Path, head: Mapping[str, tuple[int, str]], name: str) -> int:
    """Return a number of the head; 0 where it has none."""
    number, value = head.get(name, (0, ""))
    if value and not value.isdecimal():
        raise DataError(f"tasks.path: {path}: line {number}: @{name} {value} is no whole number")
    return int(value or 0)


def _known(at: str, label: str, classes: tuple[str, ...]) -> str:
    if not label:
        raise DataError(f"{at}: no label after the last ':'")
    found = str(as_known([label], classes)[0])
    if found not in classes:
        raise DataError(f"{at}: {unknown('class', label, classes)}")
    return found


def _channels(at: str, dimensions: list[str]) -> Values:
    """Return one series [channels, length] of its dimensions' texts."""
    if not dimensions:
        raise DataError(f"{at}: no ':' between the values and the label")
    rows = [_values(at, one.split(",")) for one in dimensions]
    if len({len(row) for row in rows}) > 1:
        lengths = ", ".join(str(len(row)) for row in rows)
        raise DataError(f"{at}: its dimensions have different lengths ({lengths})")
    return _observed(at, np.stack(rows))


def _values(at: str, cells: list[str]) -> Values:
    """Return numbers, NaN for missing ones; raises DataError for a cell that is no finite number."""
    texts = ["nan" if cell.strip().lower() in MISSING else cell for cell in cells]
    try:
        values = np.array(texts, dtype=np.float64)
    except ValueError:
        values = np.array([_or_infinity(text) for text in texts])
    wrong = np.flatnonzero(np.isinf(values))
    if len(wrong):
        raise DataError(f"{at}: value {wrong[0] + 1} is '{texts[wrong[0]].strip()}', and a finite number is expected")
    return values


def _or_infinity(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.inf


def _observed(at: str, series: Values) -> Values:
    if np.isnan(series).all():
        raise DataError(f"{at}: a series without any value")
    return series


def _read_rows(path: Path, lines: Iterator[tuple[int, str]]) -> SeriesFile:
    """Read a label and the values of one series a line, apart by tabs, by commas, or by spaces."""
    found = SeriesFile()
    for number, line in lines:
        at = f"tasks.path: {path}: line {number}"
        text = line.rstrip("\r\n")
        if not text.strip():
            continue
        mark = next((one for one in ("\t", ",") if one in text), None)
        label, *cells = text.split(mark)
        if not label.strip() or not cells:
            raise DataError(f"{at}: a label and the values of a series are expected")
        found.series.append(_observed(at, _values(at, cells)[None]))
        found.labels.append(label.strip())
    return found
