"""The rows that meet a question as a file, part by part: however many there are, few are in memory at once."""

import io
import json
from collections.abc import Iterator
from typing import Any

from metaloom.dashboards.episodes.asked import EpisodeQuestion
from metaloom.dashboards.episodes.index import EpisodeIndex
from metaloom.dashboards.episodes.paging import parts_asked
from metaloom.dashboards.episodes.scanning import rows_of
from metaloom.dashboards.filters import ACCURACIES, counted
from metaloom.workers.records.episode import COLUMNS
from metaloom.workers.records.episode_schema import EPISODE_SCHEMA

FORMATS = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}


def download(index: EpisodeIndex, question: EpisodeQuestion, name: str, form: str) -> Iterator[bytes]:
    """Give the content of a file with the rows of a question, in the order they were played; damaged parts left out.

    Args:
        index: Of the search.
        question: Which rows; its order is not taken.
        name: Of the search, as it is called now.
        form: One of ``FORMATS``.
    """
    return _csv(index, question, name) if form == "csv" else _parquet(index, question, name)


def _tables(index: EpisodeIndex, question: EpisodeQuestion, name: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.dataset as ds

    for part in parts_asked(index, question):
        facts = index.facts(part)
        if facts is not None and not question.may_hold(part.trial, facts):
            continue
        table, damage = rows_of(index, part, question)
        if damage is not None or not len(table):
            continue
        columns = {one: counted(one) if one in ACCURACIES else ds.field(one) for one in table.column_names}
        table = ds.dataset(table).to_table(columns=columns).cast(EPISODE_SCHEMA)
        yield table.set_column(0, "search", pa.repeat(pa.scalar(name), len(table)))


def _csv(index: EpisodeIndex, question: EpisodeQuestion, name: str) -> Iterator[bytes]:
    """Give comma-separated rows; a list is a JSON text in its cell."""
    import pyarrow as pa
    from pyarrow import csv

    lists = [place for place, column in enumerate(COLUMNS) if column.kind.endswith(" list")]
    head = ",".join(f'"{column.name}"' for column in COLUMNS)
    yield f"{head}\n".encode()
    for table in _tables(index, question, name):
        for place in lists:
            texts = [None if one is None else json.dumps(one) for one in table.column(place).to_pylist()]
            table = table.set_column(place, COLUMNS[place].name, pa.array(texts, pa.string()))
        sink = io.BytesIO()
        csv.write_csv(table, sink, csv.WriteOptions(include_header=False))
        yield sink.getvalue()


class _Taken(io.RawIOBase):
    """A sink whose bytes are taken out as they come."""

    def __init__(self) -> None:
        self._bytes, self._at = bytearray(), 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._bytes += content
        self._at += len(content)
        return len(content)

    def tell(self) -> int:
        return self._at

    def take(self) -> bytes:
        """Return the bytes since the last call."""
        taken, self._bytes = bytes(self._bytes), bytearray()
        return taken


def _parquet(index: EpisodeIndex, question: EpisodeQuestion, name: str) -> Iterator[bytes]:
    import pyarrow.parquet as parquet

    sink = _Taken()
    with parquet.ParquetWriter(sink, EPISODE_SCHEMA) as writer:
        for table in _tables(index, question, name):
            writer.write_table(table)
            yield sink.take()
    yield sink.take()
