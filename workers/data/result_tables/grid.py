"""A table of a whole grid: every combination of the values of its knobs, each trained once or several times."""

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from metaloom.search_spaces.knobs.sampling import Value
from metaloom.workers.data.result_tables.base import Curve, Direction, ResultTable, curve_of, objective_for
from metaloom.workers.data.result_tables.rows import domain_of

Floats = NDArray[np.float64]


class GridTable(ResultTable):
    """Every combination of the levels of some knobs, in the order of ``itertools.product``.

    A trial shows one number, at its end: the mean over the recorded runs. One run alone would make the best of a search
    the luckiest one.

    Args:
        name: As the user calls it.
        levels: The values of each knob, ascending where they are numbers.
        values: Of each combination, [configurations]; NaN where it was not trained.
        seconds: Of each combination's training, [configurations].
        measure: What the values are.
        direction: Whether more of it is better.
    """

    def __init__(
        self,
        name: str,
        levels: Mapping[str, Sequence[Value]],
        values: Floats,
        *,
        seconds: Floats | None,
        measure: str,
        direction: Direction,
    ) -> None:
        self.name, self.measure = name, measure
        self.levels = {knob: _alike(options) for knob, options in levels.items()}
        self.objective, self.direction = objective_for(direction), direction
        self.domains = {knob: domain_of(options) for knob, options in self.levels.items()}
        self.values, self._seconds = values, seconds
        self.has_seconds = seconds is not None

    @cached_property
    def configurations(self) -> Sequence[Mapping[str, Value]]:  # type: ignore[override]  # made when they are asked for
        """The values of the knobs of each configuration."""
        names = list(self.levels)
        return [dict(zip(names, one, strict=True)) for one in itertools.product(*self.levels.values())]

    def curve(self, configuration: int, *, run: int, seed: int) -> Curve:
        """Return its one report; a configuration that was not trained has failed."""
        value = float(self.values[configuration])
        if np.isnan(value):
            return Curve((), problem=f"{self.name} has no result of this configuration")
        seconds = None if self._seconds is None else [float(self._seconds[configuration])]
        return curve_of(self.direction, [value], seconds=seconds)

    def value(self, configuration: int) -> float | None:
        """Return the mean over the recorded runs."""
        value = float(self.values[configuration])
        return None if np.isnan(value) else value


def _alike(levels: Sequence[Value]) -> Sequence[Value]:
    """Return the values of one knob with one type: 1 beside 0.1 is 1.0."""
    return [float(one) for one in levels] if any(isinstance(one, float) for one in levels) else list(levels)
