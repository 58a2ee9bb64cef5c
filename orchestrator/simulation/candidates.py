"""Which configuration of a table a simulated search takes for a suggestion: the nearest that it may still take.

Distances are Euclidean in the unit cube of the knobs: a number's place in its range (of its logarithm, if the knob is
log), 1 between two options, and 1 for a knob that only one of the two has. A suggestion that is in the table is taken
as it is, so a search that is replayed with its own settings takes its own trials.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from metaloom.learners.domains import Choice
from metaloom.search_spaces.knobs.sampling import Domain, Value
from metaloom.workers.data.result_tables import ResultTable

Params = Mapping[str, Value]


class Candidates:
    """The configurations of a table, to be found by their values."""

    def __init__(self, table: ResultTable) -> None:
        self._table, self._domains = table, table.domains
        self._exact: dict[frozenset[tuple[str, Value]], list[int]] = {}
        for index, configuration in enumerate(table.configurations):
            self._exact.setdefault(frozenset(configuration.items()), []).append(index)
        self._levels = {} if table.once else self._levels_of_numbers()
        self._places: NDArray[np.float64] | None = None

    def nearest(self, params: Params, taken: Sequence[int]) -> int | None:
        """Return the nearest configuration, the first of equally near ones; None if all have been taken.

        Args:
            taken: Those that the search has taken; they count where a configuration may be taken once only.
        """
        gone = set(taken) if self._table.once else set[int]()
        for values in (params, self._rounded(params)):
            found = [index for index in self._exact.get(frozenset(values.items()), ()) if index not in gone]
            if found:
                return found[0]
        if len(gone) >= len(self._table.configurations):
            return None
        distances = self._distances(params)
        distances[list(gone)] = math.inf
        return int(distances.argmin())

    def _levels_of_numbers(self) -> dict[str, list[float]]:
        numbers = [name for name, domain in self._domains.items() if not isinstance(domain, Choice)]
        rows = self._table.configurations
        return {name: sorted({float(row[name]) for row in rows if name in row}) for name in numbers}

    def _rounded(self, params: Params) -> Params:
        """Return the nearest value that the table has of each knob: of a whole grid, the nearest configuration."""
        return {
            name: min(self._levels[name], key=lambda level: abs(self._unit(name, level) - self._unit(name, value)))
            if self._levels.get(name)
            else value
            for name, value in params.items()
        }

    def _unit(self, name: str, value: Value) -> float:
        return unit(self._domains[name], value)

    def _distances(self, params: Params) -> NDArray[np.float64]:
        """Return the squared distance [configurations] of each."""
        if self._places is None:
            self._places = np.array([self._point(row) for row in self._table.configurations])
        other = np.array(self._point(params))
        apart: NDArray[np.float64] = self._places - other  # [configurations, knobs]; NaN where one has no such knob
        absent = np.isnan(self._places) & np.isnan(other)
        chosen = np.array([isinstance(domain, Choice) for domain in self._domains.values()])
        squares = np.where(chosen, (apart != 0).astype(float), apart**2)
        squares = np.where(np.isnan(apart), 1.0, squares)
        distances: NDArray[np.float64] = np.where(absent, 0.0, squares).sum(axis=1)
        return distances

    def _point(self, params: Params) -> list[float]:
        return [
            self._unit(name, params[name]) if name in params else math.nan for name, domain in self._domains.items()
        ]


def unit(domain: Domain, value: Value) -> float:
    """Return a value's place in its range, 0 to 1; of an option, its number."""
    if isinstance(domain, Choice):
        return float(domain.options.index(str(value))) if str(value) in domain.options else -1.0
    if domain.low == domain.high:
        return 0.0
    low, high, at = (math.log(one) if domain.log else float(one) for one in (domain.low, domain.high, float(value)))
    return (at - low) / (high - low)
