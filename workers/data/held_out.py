"""Examples of training classes that training leaves out, to test these classes beside new ones."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from metaloom.workers.data.base import DataError
from metaloom.workers.data.class_table import ClassTable, Rows
from metaloom.workers.data.streams import HELD_OUT, fixed_generator


@dataclass(frozen=True)
class HeldOut:
    """The last examples of each training class, in an order of its own.

    Attributes:
        counts: How many of each class are held out [classes]; 0 of classes of the other splits.
        places: The row that stands at each row's place [rows]; none where nothing is held out.
    """

    counts: Rows
    places: Rows | None

    @classmethod
    def of(cls, table: ClassTable, fraction: float, needed: int) -> Self:
        """Hold out a fraction of the examples of each training class, always the same ones; one at least.

        Raises DataError if fewer than ``needed`` examples of a class are left.
        """
        counts = np.zeros(len(table.names), dtype=np.int64)
        if not fraction:
            return cls(counts, None)
        first, last = table.ends["train"]
        counts[first:last] = np.maximum(1, np.round(fraction * table.counts[first:last]))
        left = table.counts[first:last] - counts[first:last]
        if (left < needed).any():
            least = int(left.argmin())
            name = table.names[first + least]
            raise DataError(
                f"tasks.seen_fraction: {fraction:g} leaves {left[least]} examples of '{name}', and "
                f"a training episode takes {needed}; hold fewer out, or take fewer shots and queries"
            )
        places = np.arange(int((table.starts + table.counts).max()))
        for start, count in zip(table.starts[first:last].tolist(), table.counts[first:last].tolist(), strict=True):
            # by the first row, so that the turned forms of a class leave out the same drawings
            places[start : start + count] = start + fixed_generator(start, HELD_OUT).permutation(count)
        return cls(counts, places)

    def order(self, rows: Rows) -> Rows:
        """Return the rows that stand at these places."""
        return rows if self.places is None else self.places[rows]

    def examples(self, table: ClassTable) -> tuple[Rows, Rows]:
        """Return the row and the quarter turns of every example that is held out, class by class, each [examples]."""
        ends = (table.starts + table.counts).tolist()
        held = [np.arange(end - count, end) for end, count in zip(ends, self.counts.tolist(), strict=True)]
        return self.order(np.concatenate(held)), table.turns.repeat(self.counts)
