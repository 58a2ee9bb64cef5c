"""Reads episode rows from Parquet parts, by a condition, without those that are damaged."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaloom.dashboards import rows
from metaloom.dashboards.filters import counted_row, parse_conditions, parse_filter
from metaloom.learners.errors import BadInput
from metaloom.workers.records.episode import EPISODE_COLUMNS
from metaloom.workers.records.parts import DamagedPart, unreadable_parts

if TYPE_CHECKING:
    import pyarrow.dataset as ds


class QueryError(BadInput):
    """The store does not have what a query names."""


@dataclass(frozen=True)
class EpisodeRows:
    """At most ``limit`` rows, by trial and in the order of the episodes, and the total number of matching rows.

    ``damaged`` are the parts whose rows are left out. If there are no rows, ``empty`` are the condition's columns that
    are null in every row that its other parts keep.
    """

    rows: list[dict[str, Any]]
    total: int
    empty: tuple[str, ...] = ()
    damaged: tuple[DamagedPart, ...] = ()


def condition_of(phase: str | None, where: str | None) -> Any:
    """Return the condition that rows of a phase meet; raises FilterError if ``where`` cannot be read."""
    condition = in_phase(phase)
    return condition & parse_filter(where, EPISODE_COLUMNS) if where else condition


def in_phase(phase: str | None) -> Any:
    """Return the condition that rows of a phase meet; None: every row."""
    import pyarrow.compute as pc

    return pc.scalar(True) if phase is None else pc.field("phase") == phase


def empty_columns(dataset: "ds.Dataset", where: str, phase: str | None) -> tuple[str, ...]:
    """Return the columns of ``where`` that are null in every row that its other conditions keep."""
    import pyarrow.compute as pc

    conditions = parse_conditions(where, EPISODE_COLUMNS)
    empty = []
    for column in sorted({name for _, named in conditions for name in named}):
        kept = in_phase(phase)
        for condition, named in conditions:
            if column not in named:
                kept &= condition
        is_set = ~pc.field(column).is_null(nan_is_null=True)
        if dataset.count_rows(filter=kept) and not dataset.count_rows(filter=kept & is_set):
            empty.append(column)
    return tuple(empty)


def scan(parts: Mapping[Path, int], condition: Any, limit: int | None) -> "tuple[EpisodeRows, ds.Dataset | None]":
    """Read the rows that meet a condition; return them and the data set. ``parts`` are of trials, by number."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    if not parts:
        return EpisodeRows([], 0), None
    verified = ds.ParquetFileFormat(
        default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    )
    try:
        dataset = ds.dataset([str(part) for part in parts], format=verified)
        total = dataset.count_rows(filter=condition)
        table = dataset.to_table(filter=condition) if limit is None else dataset.head(limit, filter=condition)
    except (pa.ArrowException, OSError) as error:
        damaged = [one for part, trial in parts.items() for one in unreadable_parts(trial, [part])]
        if not damaged:  # the files are whole, so it is the condition
            raise QueryError(f"--where compares values of different kinds: {error}") from error
        whole = {part: trial for part, trial in parts.items() if part not in {one.path for one in damaged}}
        episodes, left = scan(whole, condition, limit)
        return replace(episodes, damaged=tuple(damaged)), left
    return EpisodeRows(rows.to_json(list(map(counted_row, table.to_pylist()))), total), dataset
