"""Counts the rows that meet a question: at once where the index knows it, else some parts at a time."""

import time
from dataclasses import dataclass

from metaloom.dashboards.episodes.asked import EpisodeQuestion
from metaloom.dashboards.episodes.index import EpisodeIndex
from metaloom.dashboards.episodes.paging import PagePlace, PageReader, parts_asked, place_of, start_of

COUNT_S = 0.25  # after which a count is given as it is


@dataclass(frozen=True)
class EpisodeCount:
    """How many rows meet a question.

    Attributes:
        rows: So many, or at least so many.
        going_on: Where the count goes on; None where it is exact.
        looked: How many parts were counted, of ``of``.
    """

    rows: int
    going_on: PagePlace | None
    looked: int
    of: int


def known_total(index: EpisodeIndex, question: EpisodeQuestion) -> int | None:
    """Return the number of rows where no row has to be read for it; else None."""
    return index.count(question.trial, question.phase) if question.keeps_all else None


def count_on(
    index: EpisodeIndex,
    question: EpisodeQuestion,
    so_far: int = 0,
    place: PagePlace | None = None,
    *,
    time_s: float = COUNT_S,
) -> EpisodeCount:
    """Count on from a place, for some time; ``so_far`` rows lie before it."""
    parts = parts_asked(index, question)
    first, deadline = 0 if place is None else place_of(parts, place), time.monotonic() + time_s
    reader = PageReader(index, question, 0, deadline)
    with index.reading():
        for number, _, count in reader.counted(parts[first:]):
            so_far += count
            if reader.is_late:
                done = first + number + 1
                return EpisodeCount(so_far, start_of(parts, done), done, len(parts))
    return EpisodeCount(so_far, None, len(parts), len(parts))
