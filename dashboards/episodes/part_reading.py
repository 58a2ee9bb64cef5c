"""Reads single parts: whether they are as they were written, what they hold in short, and their rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaloom.dashboards.episodes.bounds import BOUNDED, NO_VALUE, Ends, PartFacts
from metaloom.dashboards.filters import ACCURACIES
from metaloom.workers.records.parts import damage_of, unreadable_parts

Facts = Mapping[str, Any]
EVERY_VALUE: Ends = (-math.inf, math.inf)
UNSTEADY = "it changed while it was read"
ROUNDING = 1e-6  # an accuracy that was stored in float32 is compared as a fraction, which is nearer than this


@dataclass(frozen=True, slots=True)
class Part:
    """A part as it lies in its trial's folder; another size or time of change makes it another part."""

    trial: int
    path: Path
    bytes: int
    changed: int


def read_whole(part: Part, written: Facts | None, columns: Sequence[str] | None = None) -> tuple[Any, str]:
    """Return the rows of a part, and how it is damaged; None in place of the rows where it is.

    Args:
        part: The part.
        written: Its size and digest in the journal; None where the journal does not know it.
        columns: Those that are asked for; None: all.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        content = part.path.read_bytes()
    except OSError as problem:
        return None, f"it cannot be read ({problem.strerror})"
    if written is not None and (damage := damage_of(content, written)):
        return None, damage
    try:
        file = parquet.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        if written is None:  # no digest vouches for the columns that are not asked for
            table = file.read(use_threads=False)
            return (table if columns is None else table.select(_present(columns, table.column_names))), ""
        names = None if columns is None else _present(columns, file.schema_arrow.names)
        return file.read(columns=names, use_threads=False), ""
    except (pa.ArrowException, OSError):
        return None, "; ".join(one.reason for one in unreadable_parts(part.trial, [part.path])) or UNSTEADY


def _present(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    return [name for name in columns if name in names]


def read_columns(part: Part, columns: Sequence[str]) -> Any:
    """Return columns of a part, without a look at its digest; no rows if it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(str(part.path), page_checksum_verification=True) as file:
            names = _present(columns, file.schema_arrow.names)
            found = file.read(columns=names or ["phase"], use_threads=False)
    except (pa.ArrowException, OSError):  # ``facts_of`` and ``read_whole`` say why
        return in_schema(pa.table({}), columns)
    return in_schema(found, columns)


def in_schema(table: Any, columns: Sequence[str] | None = None) -> Any:
    """Return a part's columns as this version has them; those that an earlier one had not recorded are null."""
    import pyarrow as pa

    from metaloom.workers.records.episode_schema import EPISODE_SCHEMA

    wanted = EPISODE_SCHEMA if columns is None else pa.schema([EPISODE_SCHEMA.field(name) for name in columns])
    if table.schema.equals(wanted):
        return table
    names = set(table.column_names)
    found = [
        table.column(one.name).cast(one.type) if one.name in names else pa.nulls(len(table), one.type) for one in wanted
    ]
    return pa.Table.from_arrays(found, schema=wanted)


def facts_of(part: Part, written: Facts | None) -> PartFacts:
    """Return what a part holds in short, after it was checked."""
    table, damage = read_whole(part, written, ("phase", *BOUNDED))
    if table is None:
        return PartFacts(0, (), (NO_VALUE,) * len(BOUNDED), damage)
    found = table.column("phase").value_counts()
    phases = tuple((one["values"].as_py(), one["counts"].as_py()) for one in found)
    return PartFacts(len(table), phases, tuple(_ends(table, column) for column in BOUNDED))


def _ends(table: Any, column: str) -> Ends:
    """Return the least and greatest value of a column, accuracies as ``--where`` compares them."""
    import pyarrow.compute as pc

    if column not in table.column_names:
        return NO_VALUE
    ends = pc.min_max(table.column(column)).as_py()
    low, high = ends["min"], ends["max"]
    if low is None:
        return NO_VALUE
    if math.isnan(low) or math.isnan(high):
        return EVERY_VALUE
    return (low - ROUNDING, high + ROUNDING) if column in ACCURACIES else (low, high)
