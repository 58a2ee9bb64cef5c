"""What a column of a table holds: numbers, dates, categories, or vectors of numbers."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from metaloom.workers.data.base import some

NUMBER, DATE, CATEGORY, VECTOR = "number", "date", "category", "vector"
MARKERS = {"na", "n/a", "nan", "none", "null", "-", "?"}  # texts that often stand for a missing value
_NUMERIC = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_SECONDS = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}
_EXACT = 2**53  # up to which float64 holds every whole number


class NotAFeature(Exception):  # noqa: N818
    """A column that cannot be a feature; the message goes on ``since they ...``."""


@dataclass(frozen=True)
class Feature:
    """The cells of one column.

    Attributes:
        name: The column's.
        kind: ``number``, ``date`` (seconds since 1970), ``category`` or ``vector``.
        values: float64 [rows], [rows, width] for vectors; texts [rows] for categories. A missing number is NaN, a
            missing text is empty.
        described: Its type in words.
        unreadable: Cells that hold something, and no number [rows].
    """

    name: str
    kind: str
    values: NDArray[Any]
    described: str
    unreadable: NDArray[np.bool_]

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Cells that hold nothing [rows]."""
        if self.kind == CATEGORY:
            return np.array([not cell for cell in self.values], dtype=bool)
        nothing: NDArray[np.bool_] = np.isnan(self.values)
        return (nothing.any(1) if self.kind == VECTOR else nothing) & ~self.unreadable

    @property
    def unusable(self) -> NDArray[np.bool_]:
        """Cells that hold no number, or one that float32 cannot hold [rows]."""
        if self.kind == CATEGORY:
            return self.unreadable
        with np.errstate(over="ignore"):
            infinite: NDArray[np.bool_] = np.isinf(self.values.astype(np.float32))
        return self.unreadable | (infinite.any(1) if self.kind == VECTOR else infinite)

    @property
    def is_numbering(self) -> bool:
        """Whether its cells are whole numbers of which no two are equal, as row numbers and ids are."""
        if self.described != WHOLE or not len(self.values) or np.isnan(self.values).any():
            return False
        return len(np.unique(self.values)) == len(self.values)

    def kept(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> Self:
        """Return the feature with these rows alone."""
        return replace(self, values=self.values[keep], unreadable=self.unreadable[keep])


WHOLE, REAL = "whole number", "number"
NOTHING = "have no value in any row"


def is_text(kind: Any) -> bool:
    """Return whether an Arrow type is text."""
    return any(is_kind(kind) for is_kind in _TEXT)


def as_feature(name: str, column: Any, decimal: str = ".") -> Feature:
    """Return what an Arrow column holds; raises NotAFeature where that is neither numbers, dates nor categories.

    ``decimal`` is the decimal sign of numbers in a column of text.
    """
    kind = column.type
    if any(is_kind(kind) for is_kind in _NUMERIC):
        values = np.array(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
        return _whole(name, NUMBER, values, _described(kind))
    if pa.types.is_temporal(kind):
        return _whole(name, DATE, _seconds(column), "date" if pa.types.is_date(kind) else "time")
    if any(is_kind(kind) for is_kind in _LISTS):
        return _vector(name, column)
    if pa.types.is_dictionary(kind) and not pa.types.is_nested(kind.value_type):
        return as_category(name, column)
    if is_text(kind):
        if not any((cell or "").strip() for cell in column.to_pylist()):
            raise NotAFeature(NOTHING)
        return _numbers_of_text(name, column, decimal) or _category(name, column)
    if pa.types.is_null(kind):
        raise NotAFeature(NOTHING)
    if _is_image(kind):
        raise NotAFeature("hold images (a table takes numbers: write them to class folders for source: folder)")
    raise NotAFeature("hold no numbers")


def _whole(name: str, kind: str, values: NDArray[Any], described: str) -> Feature:
    """Return a feature whose cells can all be read."""
    return Feature(name, kind, values, described, np.zeros(len(values), dtype=bool))


def _described(kind: Any) -> str:
    if pa.types.is_boolean(kind):
        return "true or false"
    return WHOLE if pa.types.is_integer(kind) else REAL


def _seconds(column: Any) -> NDArray[np.float64]:
    """Return dates and times as seconds, since 1970 or midnight; a missing one as NaN."""
    kind = column.type
    if pa.types.is_date(kind):
        column = column.cast(pa.timestamp("s"))
        kind = column.type
    if not hasattr(kind, "unit"):
        raise NotAFeature("hold no numbers")
    whole = column.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
    return np.asarray(whole.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64) / _SECONDS[kind.unit]


def _vector(name: str, column: Any) -> Feature:
    """Return a column of lists of numbers, such as embeddings, as rows of numbers."""
    inner = column.type.value_type
    if not any(is_kind(inner) for is_kind in _NUMERIC):
        raise NotAFeature("hold lists of other things than numbers")
    cells = column.to_pylist()
    widths = {len(cell) for cell in cells if cell is not None}
    if len(widths) != 1 or widths == {0}:
        raise NotAFeature("hold lists of unequal length")
    (width,) = widths
    nothing = [None] * width
    values = np.array([nothing if cell is None else cell for cell in cells], dtype=np.float64)
    return _whole(name, VECTOR, values, f"{width} numbers")


def as_category(name: str, column: Any) -> Feature:
    """Return a column's cells as texts, whatever they look like."""
    texts = [None if cell is None else str(cell) for cell in column.to_pylist()]
    return _category(name, pa.chunked_array([pa.array(texts, pa.string())]))


def as_asked(name: str, column: Any, *, is_category: bool, decimal: str = ".") -> Feature:
    """Return a column that is asked for by its name: a category whatever its cells look like, or missing numbers.

    Raises NotAFeature as ``as_feature`` does.
    """
    if is_category:
        return as_category(name, column)
    if pa.types.is_null(column.type):
        return _whole(name, NUMBER, np.full(len(column), np.nan), REAL)
    return as_feature(name, column, decimal)


def _category(name: str, column: Any) -> Feature:
    texts = np.array([(cell or "").strip() for cell in column.to_pylist()], dtype=object)
    distinct = len(set(texts.tolist()) - {""})
    return _whole(name, CATEGORY, texts, f"text of {distinct} values")


def _numbers_of_text(name: str, column: Any, decimal: str) -> Feature | None:
    """Return a column of text as numbers where more than half of its cells are some; None elsewhere.

    One unreadable cell makes a reader take its whole column for text.
    """
    cells = [(cell or "").strip() for cell in column.to_pylist()]
    values = np.array([_number(cell.replace(decimal, ".")) for cell in cells], dtype=np.float64)
    if 2 * np.isfinite(values).sum() <= len(cells) - column.null_count:
        return None
    unreadable = [bool(cell) and cell.lower() not in MARKERS for cell in cells]
    return Feature(name, NUMBER, values, REAL, np.isnan(values) & np.array(unreadable, dtype=bool))


def _number(cell: str) -> float:
    with contextlib.suppress(ValueError):
        return float(cell or "nan")
    return float("nan")


def _is_image(kind: Any) -> bool:
    """Return whether a type is that of Hugging Face's images: a struct of bytes and path."""
    return pa.types.is_struct(kind) and "bytes" in {kind.field(place).name for place in range(kind.num_fields)}


def merged_by_float64(feature: Feature, column: Any) -> str | None:
    """Say how many distinct values are left of whole numbers beyond 2**53; None where all are."""
    kind = column.type
    if not pa.types.is_integer(kind) and not pa.types.is_decimal(kind):
        return None
    if np.nanmax(np.abs(feature.values), initial=0) <= _EXACT:
        return None
    had, left = pc.count_distinct(column).as_py(), len(np.unique(feature.values[~np.isnan(feature.values)]))
    if left == had:
        return None
    return (
        f"column '{feature.name}' has whole numbers beyond 2**53: of {had} distinct values float64 keeps {left}; "
        "subtract what they share"
    )


def marked_as_missing(labels: NDArray[Any]) -> Iterator[str]:
    """Name classes that may stand for a missing label; a missing label is an empty cell."""
    names, counts = np.unique(labels.astype(str), return_counts=True)
    found = [f"'{n}' ({c} rows)" for n, c in zip(names, counts, strict=True) if n.strip().lower() in MARKERS]
    if found:
        yield f"taken as classes of their own: {some(found)}; where they mean that the label is missing, empty the cell"
