"""The time of a trial by its parts."""

import time


class Laps:
    """Divides an outer step's time among its parts: each ``end`` adds what has passed since the last one.

    On a GPU a part's last operations may still be in flight at its end; they then count in the next part. A
    hypergradient ends with its norm, which waits for all of it.

    Args:
        spent: The seconds of each part so far.
    """

    def __init__(self, spent: dict[str, float]) -> None:
        self._spent = spent
        self._first = self._last = time.perf_counter()

    def end(self, part: str) -> None:
        """End a part that began with the end of the one before it."""
        now = time.perf_counter()
        self._spent[part] = self._spent.get(part, 0.0) + now - self._last
        self._last = now

    @property
    def seconds(self) -> float:
        """The time of all parts."""
        return self._last - self._first
