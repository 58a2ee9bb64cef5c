"""Pages of a search's episodes: from a place on, so many rows, in a bounded time.

A place is a part and how many rows of it, of those that meet the question, lie before. So a page costs the same
wherever it begins. Where the time is over before a page is full, the page is given as it is, and the next one goes on
from there.
"""

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from metaloom.dashboards import rows as documents
from metaloom.dashboards.asked_numbers import is_whole_number
from metaloom.dashboards.episode_scan import QueryError
from metaloom.dashboards.episodes.asked import EpisodeQuestion
from metaloom.dashboards.episodes.bounds import PartFacts
from metaloom.dashboards.episodes.index import EpisodeIndex
from metaloom.dashboards.episodes.part_reading import Part
from metaloom.dashboards.episodes.scanning import matching, rows_of
from metaloom.dashboards.filters import counted_row
from metaloom.workers.records.parts import DamagedPart

ROWS = 50  # of a page
TIME_S = 0.12  # after which a page is given as it is
CHUNKS = (2, 8, 32)  # parts that are looked through at once; the last number is repeated


class PagePlace(NamedTuple):
    """A place between two rows: in a part, after so many of its rows that meet the question."""

    trial: int
    part: str
    rows: int

    def __str__(self) -> str:
        return f"{self.trial}:{self.part}:{self.rows}"

    @classmethod
    def of(cls, text: str) -> "PagePlace":
        """Read a place in a page's link; raises QueryError."""
        trial, _, rest = text.partition(":")
        part, _, rows = rest.rpartition(":")
        if not (is_whole_number(trial) and is_whole_number(rows) and part):
            raise QueryError(f"after: got '{text}'; allowed: a place in a page's own link")
        return cls(int(trial), part, int(rows))


@dataclass
class EpisodePage:
    """Some rows, and where the pages before and after them are.

    Attributes:
        rows: As ``metaloom episodes --json`` has them.
        parts: The part of each row.
        before: The place before the first row, at which the page before ends; None on the first page.
        after: The place after the last row, at which the next page begins; None on the last page.
        is_full: Whether it has as many rows as asked for, or all that there are: False if the time was over before.
        looked: The place of the last part that was looked at, of ``of``.
        damaged: Parts that were found damaged while this page was read.
        has_more: In another order than they were played: whether rows follow; the places are None then.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    before: PagePlace | None = None
    after: PagePlace | None = None
    is_full: bool = True
    looked: int = 0
    of: int = 0
    damaged: list[DamagedPart] = field(default_factory=list)
    has_more: bool = False


def parts_asked(index: EpisodeIndex, question: EpisodeQuestion) -> list[Part]:
    """Return the parts of the trial that is asked for, or of all, in the order of their rows."""
    return index.parts if question.trial is None else [one for one in index.parts if one.trial == question.trial]


def episode_page(
    index: EpisodeIndex,
    question: EpisodeQuestion,
    name: str,
    *,
    after: PagePlace | None = None,
    before: PagePlace | None = None,
    size: int = ROWS,
    time_s: float = TIME_S,
) -> EpisodePage:
    """Return the rows after a place, or those before one; by default the first rows.

    Args:
        index: Of the search.
        question: Which rows.
        name: Of the search, as it is called now.
        after: Where the page begins.
        before: Where the page ends instead; ``after`` must then be None.
        size: The most rows.
        time_s: After which the page is given as it is.
    """
    parts = parts_asked(index, question)
    reader = PageReader(index, question, size, time.monotonic() + time_s)
    with index.reading():
        page = _backwards(reader, parts, before) if before else _forwards(reader, parts, after)
    page.of = len(parts)
    page.rows = [{**one, "search": name} for one in documents.to_json(list(map(counted_row, page.rows)))]
    return page


@dataclass
class PageReader:
    """What reading a page needs, and when its time is over."""

    index: EpisodeIndex
    question: EpisodeQuestion
    size: int
    deadline: float

    @property
    def is_late(self) -> bool:
        return time.monotonic() > self.deadline

    def counted(self, parts: Sequence[Part]) -> Iterator[tuple[int, Part, int]]:
        """Give each part that can hold rows, with its place and the number of its rows that meet the question."""
        waiting, chunks = list[tuple[int, Part]](), iter(CHUNKS)
        most = next(chunks)
        for place, part in enumerate(parts):
            facts = self.index.facts(part)
            if facts is not None and not self.question.may_hold(part.trial, facts):
                continue
            known = known_count(facts, self.question)
            if known is not None:
                yield place, part, known
                continue
            waiting.append((place, part))
            if len(waiting) == most:
                yield from self._looked_through(waiting)
                waiting, most = [], next(chunks, CHUNKS[-1])
        yield from self._looked_through(waiting)

    def _looked_through(self, waiting: Sequence[tuple[int, Part]]) -> Iterator[tuple[int, Part, int]]:
        counts = matching([part for _, part in waiting], self.question) if waiting else []
        for (place, part), count in zip(waiting, counts, strict=True):
            yield place, part, count

    def rows(self, part: Part, page: EpisodePage) -> list[dict[str, Any]]:
        """Return a part's rows that meet the question; none, and a note on the page, if it is damaged."""
        table, damage = rows_of(self.index, part, self.question)
        if damage is not None:
            page.damaged.append(damage)
            return []
        found: list[dict[str, Any]] = table.to_pylist()
        return found


def known_count(facts: PartFacts | None, question: EpisodeQuestion) -> int | None:
    """Return how many rows of a part meet a question, where its facts say it; else None."""
    if facts is None or not question.keeps_all:
        return None
    return facts.rows if question.phase is None else dict(facts.phases).get(question.phase, 0)


def _forwards(reader: PageReader, parts: Sequence[Part], start: PagePlace | None) -> EpisodePage:
    page = EpisodePage()
    first = 0 if start is None else place_of(parts, start)
    page.before = start
    for place, part, count in reader.counted(parts[first:]):
        page.looked = first + place + 1
        skipped = start.rows if start and (part.trial, part.path.name) == start[:2] else 0
        if len(page.rows) == reader.size and count > skipped:
            return page  # there are more rows after it: ``after`` says where
        own = reader.rows(part, page)[skipped:] if count > skipped else []
        taken = own[: reader.size - len(page.rows)]
        page.rows += taken
        page.parts += [part] * len(taken)
        if len(own) > len(taken):
            page.after = PagePlace(part.trial, part.path.name, skipped + len(taken))
            return page
        page.after = start_of(parts, first + place + 1)
        if reader.is_late:
            page.is_full = len(page.rows) == reader.size
            return page
    page.looked, page.after = len(parts), None
    return page


def _backwards(reader: PageReader, parts: Sequence[Part], end: PagePlace) -> EpisodePage:
    page = EpisodePage(after=end)
    last = place_of(parts, end)
    is_here = end.rows > 0 and start_of(parts, last) == (*end[:2], 0)
    until = parts[: last + is_here][::-1]
    for place, part, count in reader.counted(until):
        page.looked = len(until) - place - 1
        most = end.rows if (part.trial, part.path.name) == end[:2] else count
        if len(page.rows) == reader.size and most:
            return page
        own = reader.rows(part, page)[:most] if most else []
        taken = own[len(own) - min(len(own), reader.size - len(page.rows)) :]
        page.rows[:0] = taken
        page.parts[:0] = [part] * len(taken)
        page.before = PagePlace(part.trial, part.path.name, len(own) - len(taken))
        if len(own) > len(taken):
            return page
        if reader.is_late:
            page.is_full = len(page.rows) == reader.size
            return page
    page.looked, page.before = 0, None
    return page


def start_of(parts: Sequence[Part], number: int) -> PagePlace | None:
    """Return the place before a part's first row; None after the last part."""
    return PagePlace(parts[number].trial, parts[number].path.name, 0) if number < len(parts) else None


def place_of(parts: Sequence[Part], place: PagePlace) -> int:
    """Return the first part that is not before the place's: a part may have been replaced since."""
    return bisect_left(parts, place[:2], key=lambda part: (part.trial, part.path.name))
