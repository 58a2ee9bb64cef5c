"""The first rows by the value of a column, over all parts of a search.

The parts are read in the order of the best value that they can hold, until no other part can hold a better row than
the last one that is shown. Where the time is over before, the scan goes on when it is asked again.
"""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaloom.dashboards import rows as documents
from metaloom.dashboards.episodes.asked import DESCENDING, EpisodeQuestion
from metaloom.dashboards.episodes.bounds import BOUNDED
from metaloom.dashboards.episodes.index import EpisodeIndex
from metaloom.dashboards.episodes.paging import ROWS, TIME_S, EpisodePage, parts_asked
from metaloom.dashboards.episodes.part_reading import Part
from metaloom.dashboards.episodes.scanning import PART, rows_of, selected
from metaloom.dashboards.filters import ACCURACIES, COUNTS, counted, counted_row

MOST = 1000  # rows that are sorted; a further row is found by more conditions
CHUNK = 24  # parts that are looked through at once
KEPT = 8  # scans that go on when they are asked again


@dataclass
class SortedScan:
    """A scan of parts for the first rows by a column; ``keys`` are the values, of which smaller ones come first."""

    index: EpisodeIndex
    question: EpisodeQuestion
    parts: list[Part]
    waiting: list[tuple[float, int]] = field(default_factory=list)  # the best key of each part, and its place; reversed
    keys: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    places: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    numbers: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    of: int = 0

    def __post_init__(self) -> None:
        self.column = self.question.sort.removeprefix(DESCENDING)
        self.sign = -1.0 if self.question.sort.startswith(DESCENDING) else 1.0
        column = BOUNDED.index(self.column)
        for place, part in enumerate(self.parts):
            facts = self.index.facts(part)
            if facts is None:
                self.waiting.append((-np.inf, place))
            elif self.question.may_hold(part.trial, facts):
                low, high = facts.ends[column]
                self.waiting.append((low if self.sign > 0 else -high, place))
        self.waiting.sort(reverse=True)
        self.of = len(self.waiting)

    def is_done(self, rows: int) -> bool:
        """Return whether no other part can hold one of the first so many rows."""
        if not self.waiting:
            return True
        return len(self.keys) >= rows and (float(self.keys[rows - 1]), int(self.places[rows - 1])) < self.waiting[-1]

    def advance(self, rows: int, deadline: float) -> None:
        """Look through parts until the first so many rows are found, or the time is over."""
        while not self.is_done(rows):
            self._merge([self.waiting.pop()[1] for _ in range(min(CHUNK, len(self.waiting)))])
            if time.monotonic() > deadline:
                return

    def _merge(self, taken: list[int]) -> None:
        import pyarrow.compute as pc

        counts = COUNTS if self.column in ACCURACIES else ()
        table = selected([self.parts[place] for place in taken], self.question, (self.column, *counts))
        of_part = table.column(PART).to_numpy()
        first = np.searchsorted(of_part, np.arange(len(taken)))
        numbers = np.arange(len(table)) - first[of_part]  # of a row among those of its part that meet the question
        values = self._values(table)
        keys = self.sign * pc.fill_null(values, np.nan).to_numpy()
        valid = ~np.isnan(keys)  # a row without a value has no place in the order
        places = np.array(taken, dtype=np.int64)[of_part]
        keys = np.concatenate([self.keys, keys[valid]])
        places = np.concatenate([self.places, places[valid]])
        numbers = np.concatenate([self.numbers, numbers[valid]])
        order = np.lexsort((numbers, places, keys))[:MOST]
        self.keys, self.places, self.numbers = keys[order], places[order], numbers[order]

    def _values(self, table: Any) -> Any:
        import pyarrow.dataset as ds

        if self.column not in ACCURACIES:
            return table.column(self.column).cast("float64").combine_chunks()
        return ds.dataset(table).to_table(columns={"key": counted(self.column)}).column("key").combine_chunks()

    def rows(self, first: int, end: int) -> tuple[list[dict[str, Any]], list[Part], list[Any]]:
        """Return rows by their place in the order, their parts, and the damaged parts among them."""
        found, parts, damaged = list[dict[str, Any]](), list[Part](), []
        read = dict[int, Any]()
        for place, number in zip(self.places[first:end].tolist(), self.numbers[first:end].tolist(), strict=True):
            if place not in read:
                read[place], damage = rows_of(self.index, self.parts[place], self.question)
                damaged += [damage] if damage else []
            if read[place] is not None:
                found += read[place].slice(number, 1).to_pylist()
                parts.append(self.parts[place])
        return found, parts, damaged


class SortedScans:
    """The scans that were asked for last, so that each goes on where it was."""

    def __init__(self) -> None:
        self._scans: OrderedDict[tuple[Any, ...], SortedScan] = OrderedDict()
        self._lock = threading.Lock()

    def page(
        self,
        index: EpisodeIndex,
        question: EpisodeQuestion,
        name: str,
        *,
        number: int = 0,
        size: int = ROWS,
        time_s: float = TIME_S,
    ) -> EpisodePage:
        """Return page ``number`` (from 0) of the rows in the question's order.

        ``is_full`` says whether it is final; ``looked`` and ``of`` are the parts that were read and that can hold rows.
        """
        last = min((number + 1) * size, MOST)
        with self._lock, index.reading():
            scan = self._scan(index, question)
            scan.advance(min(last + 1, MOST), time.monotonic() + time_s)
            found, parts, damaged = scan.rows(number * size, last)
        rows = [{**one, "search": name} for one in documents.to_json(list(map(counted_row, found)))]
        done = scan.is_done(min(last + 1, MOST))
        page = EpisodePage(rows, parts, is_full=done, looked=scan.of - len(scan.waiting), of=scan.of, damaged=damaged)
        page.has_more = len(scan.keys) > last
        return page

    def _scan(self, index: EpisodeIndex, question: EpisodeQuestion) -> SortedScan:
        parts = parts_asked(index, question)
        key = (index.folder, index.changes, *question.asked_of, question.sort)
        scan = self._scans.pop(key, None) or SortedScan(index, question, parts)
        self._scans[key] = scan
        while len(self._scans) > KEPT:
            self._scans.popitem(last=False)
        return scan


SORTED = SortedScans()
