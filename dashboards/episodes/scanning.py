"""Counts and reads the rows of parts that meet a question, some parts at a time."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from metaloom.dashboards.episode_scan import QueryError
from metaloom.dashboards.episodes.asked import EpisodeQuestion
from metaloom.dashboards.episodes.index import EpisodeIndex
from metaloom.dashboards.episodes.part_reading import Part, in_schema, read_columns, read_whole
from metaloom.workers.records.parts import DamagedPart

PART = "__part"  # the column with the place of a row's part
THREADS = 2


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="episodes")


def matching(parts: Sequence[Part], question: EpisodeQuestion) -> list[int]:
    """Return how many rows of each part meet a question; only the columns that it names are read.

    A part that cannot be read has none: ``rows_of`` says why.
    """
    import numpy as np

    table = selected(parts, question, ())
    return [int(one) for one in np.bincount(table.column(PART).to_numpy(), minlength=len(parts))]


def selected(parts: Sequence[Part], question: EpisodeQuestion, columns: Sequence[str]) -> Any:
    """Return columns of the rows that meet a question, in order, with the place of each row's part as ``PART``.

    The parts are read as they are, without a look at their digests; those that cannot be read are left out.
    """
    import numpy as np
    import pyarrow as pa

    wanted = list(dict.fromkeys([*columns, *question.columns, *(["class_ids"] if question.classes else [])]))
    tables = list(_pool().map(lambda part: read_columns(part, wanted), parts))
    places = np.repeat(np.arange(len(parts), dtype=np.int32), [len(one) for one in tables])
    table = pa.concat_tables(tables).append_column(PART, pa.array(places))
    return kept(table, question)


def kept(table: Any, question: EpisodeQuestion) -> Any:
    """Return the rows that meet a question; raises QueryError where it compares values of different kinds."""
    import pyarrow as pa

    try:
        found = table.filter(question.condition)
    except pa.ArrowException as error:
        raise QueryError(f"--where compares values of different kinds: {error}") from error
    return found.filter(holding(found.column("class_ids"), question.classes)) if question.classes else found


def holding(class_ids: Any, classes: Sequence[int]) -> Any:
    """Return which rows of a list column hold all classes, as an Arrow array of booleans."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = class_ids.combine_chunks()
    rows, values = pc.list_parent_indices(lists).to_numpy(), pc.list_flatten(lists).to_numpy()
    all_of = np.ones(len(lists), dtype=bool)
    for one in classes:
        has = np.zeros(len(lists), dtype=bool)
        has[rows[values == one]] = True
        all_of &= has
    return pa.array(all_of)


def rows_of(index: EpisodeIndex, part: Part, question: EpisodeQuestion) -> tuple[Any, DamagedPart | None]:
    """Return the rows of a part that meet a question, in order, once the part was checked; or how it is damaged."""
    table, damage = read_whole(part, index.written(part))
    if table is None:
        return None, DamagedPart(part.trial, part.path, damage)
    return kept(in_schema(table), question), None
