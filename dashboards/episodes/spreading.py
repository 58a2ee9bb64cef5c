"""Columns of the rows that meet a question, of as many evenly spread parts of the search as there is time for."""

import time
from dataclasses import dataclass
from typing import Any

from metaloom.dashboards.episodes.asked import EpisodeQuestion
from metaloom.dashboards.episodes.index import EpisodeIndex
from metaloom.dashboards.episodes.paging import parts_asked
from metaloom.dashboards.episodes.scanning import selected

CHUNK = 24  # parts that are read at once
SPREAD_S = 0.2
GOLDEN = 0.6180339887498949  # steps of this fraction of a range fill it evenly, however many there are


@dataclass(frozen=True)
class SpreadRows:
    """Columns of some rows, and of how many of the parts that can hold rows they are."""

    table: Any
    looked: int
    of: int

    @property
    def note(self) -> str:
        """What the reader has to know."""
        whole = f"Of all {len(self.table):,} episodes."
        some = (
            f"Of {len(self.table):,} episodes in {self.looked:,} of {self.of:,} parts, evenly spread over the search."
        )
        return whole if self.looked == self.of else some


def spread_rows(
    index: EpisodeIndex, question: EpisodeQuestion, columns: tuple[str, ...], *, time_s: float = SPREAD_S
) -> SpreadRows:
    """Read columns of rows that meet a question, until all parts are read or the time is over."""
    import pyarrow as pa

    may_hold = question.may_hold
    parts = [one for one in parts_asked(index, question) if not (f := index.facts(one)) or may_hold(one.trial, f)]
    order = sorted(range(len(parts)), key=lambda place: (place * GOLDEN) % 1)
    deadline, tables, looked = time.monotonic() + time_s, list[Any](), 0
    with index.reading():
        while looked < len(parts) and (not tables or time.monotonic() < deadline):
            taken = sorted(order[looked : looked + CHUNK])
            tables.append(selected([parts[place] for place in taken], question, columns).select(list(columns)))
            looked += len(taken)
    table = pa.concat_tables(tables) if tables else pa.table({name: [] for name in columns})
    return SpreadRows(table, looked, len(parts))
