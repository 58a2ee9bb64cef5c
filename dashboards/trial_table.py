"""The table of a search's trials: filtered, sorted, cut into pages, and written as CSV and Parquet."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from metaloom.dashboards import rows
from metaloom.dashboards.filters import FilterError, parse_filter
from metaloom.dashboards.trial_columns import TrialColumn, TrialFacts, columns_of, typed
from metaloom.learners.errors import BadInput, unknown
from metaloom.workers.records import names as records
from metaloom.workers.records.search import SearchRecord

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_A_PAGE = 100
DESCENDING = "-"  # before the column that the table is sorted by
LONGEST_RANGE = 24  # characters of two numbers
NUMBER_COLUMN, STATE_COLUMN = "trial", "state"


@dataclass(frozen=True)
class TrialFilter:
    """Which trials are asked for, and in which order.

    Attributes:
        text: What a row has to contain, in any column and case.
        states: Of the trials; none: all.
        where: A condition on the columns, in the language of ``metaloom episodes --where``.
        numbers: Trials, such as those that are brushed in a chart; None: all.
        sort: The key of a column, after ``-`` from the largest down; empty: by number.
    """

    text: str = ""
    states: tuple[str, ...] = ()
    where: str = ""
    numbers: frozenset[int] | None = None
    sort: str = ""


@dataclass(frozen=True)
class TrialTable:
    """The trials of a search as an Arrow table whose columns are named by their keys.

    Attributes:
        columns: In the order of the table.
        table: One row a trial, by number.
        texts: What the text filter looks at, of each trial, in lower case.
    """

    columns: tuple[TrialColumn, ...]
    table: "pa.Table"
    texts: tuple[str, ...]
    _by_key: Mapping[str, TrialColumn] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_key", {column.key: column for column in self.columns})

    def column(self, key: str) -> TrialColumn:
        """Return a column; raises BadInput for an unknown one."""
        if key not in self._by_key:
            raise BadInput(unknown("column", key, tuple(self._by_key)))
        return self._by_key[key]

    def chosen(self, keys: Iterable[str]) -> tuple[TrialColumn, ...]:
        """Return some columns in the table's order; with no keys those that are shown by default.

        Raises BadInput for an unknown one.
        """
        asked = {self.column(key).key for key in keys}
        return tuple(one for one in self.columns if (one.key in asked if asked else one.shown))

    def filtered(self, asked: TrialFilter) -> "pa.Table":
        """Return the rows that are asked for, in their order; raises BadInput for what cannot be read."""
        import pyarrow as pa
        import pyarrow.compute as pc

        table = self.table
        keep = [asked.text.lower() in text for text in self.texts] if asked.text else None
        if keep is not None:
            table = table.filter(pa.array(keep, pa.bool_()))
        for state in asked.states:
            if state not in records.TRIAL_STATES:
                raise BadInput(unknown("state", state, records.TRIAL_STATES))
        if asked.states:
            table = table.filter(pc.field(STATE_COLUMN).isin(asked.states))
        if asked.numbers is not None:
            table = table.filter(pc.field(NUMBER_COLUMN).isin(sorted(asked.numbers)))
        if asked.where.strip():
            table = self._where(table, asked.where)
        return self._sorted(table, asked.sort)

    def _where(self, table: "pa.Table", where: str) -> "pa.Table":
        import pyarrow as pa

        condition = parse_filter(where, table.column_names)
        try:
            return table.filter(condition)
        except pa.ArrowException as error:
            raise FilterError(f"--where compares values of different kinds: {error}") from error

    def _sorted(self, table: "pa.Table", sort: str) -> "pa.Table":
        if not sort:
            return table
        column = self.column(sort.removeprefix(DESCENDING))
        order = "descending" if sort.startswith(DESCENDING) else "ascending"
        by = [(column.key, order), *([(NUMBER_COLUMN, "ascending")] if column.key != NUMBER_COLUMN else [])]
        import pyarrow.compute as pc

        return table.take(pc.sort_indices(table, sort_keys=by))  # missing values come last


def trial_table(search: SearchRecord, summary: rows.SearchRow) -> TrialTable:
    """Return the table of a search's trials."""
    import pyarrow as pa

    columns = columns_of(search, summary)
    facts = [TrialFacts(search, summary, row, search.trials[row.id]) for row in summary.trials]
    arrays, texts = {}, [""] * len(facts)
    for column in columns:
        values = [column.read(one) for one in facts]
        kind, values = (column.kind, values) if column.kind else typed(values)
        arrays[column.key] = pa.array(values, type=kind)
        told = ["" if value is None else f"{value}".lower() for value in values]
        texts = [f"{before}\n{text}" for before, text in zip(texts, told, strict=True)]
    return TrialTable(columns, pa.table(arrays), tuple(texts))


def csv_of(table: "pa.Table", columns: Sequence[TrialColumn]) -> bytes:
    """Return rows as CSV: the names of the columns, numbers as they are stored, nothing where a value is missing."""
    import pyarrow.csv

    sink = io.BytesIO()
    pyarrow.csv.write_csv(_named(table, columns), sink)
    return sink.getvalue()


def parquet_of(table: "pa.Table", columns: Sequence[TrialColumn]) -> bytes:
    """Return rows as a Parquet file; each column says what it holds."""
    import pyarrow.parquet

    sink = io.BytesIO()
    pyarrow.parquet.write_table(_named(table, columns), sink)
    return sink.getvalue()


def _named(table: "pa.Table", columns: Sequence[TrialColumn]) -> "pa.Table":
    import pyarrow as pa

    fields = [pa.field(one.name, table.schema.field(one.key).type, metadata={"doc": one.doc}) for one in columns]
    return pa.table([table.column(one.key) for one in columns], schema=pa.schema(fields))


def ranges_text(numbers: Iterable[int]) -> str:
    """Write numbers as ranges, such as ``0-4,9``."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in parts)


def numbers_of(ranges: str, *, below: int) -> frozenset[int]:
    """Read what ``ranges_text`` writes, up to before ``below``; raises BadInput for anything else."""
    found: set[int] = set()
    for part in filter(None, ranges.split(",")):
        low, _, high = part.partition("-")
        if len(part) > LONGEST_RANGE or not low.isdecimal() or not (high or low).isdecimal():
            raise BadInput(f"trials={part!r} is no range of trials; an example is 0-4,9")
        found.update(range(int(low), min(int(high or low), below - 1) + 1))
    return frozenset(found)


def as_dicts(table: "pa.Table", start: int = 0, count: int | None = None) -> list[dict[str, Any]]:
    """Return some rows by the keys of their columns."""
    return list(table.slice(start, count).to_pylist())
