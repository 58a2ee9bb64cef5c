"""A table of results from rows: the values of the knobs of each row, and what was measured with them."""

import hashlib
import math
import statistics
from collections.abc import Mapping, Sequence

from metaloom.learners.domains import Choice, Int, Real
from metaloom.search_spaces.knobs.sampling import Domain, Value
from metaloom.workers.data.result_tables.base import Curve, Direction, ResultTable, objective_for


class RowTable(ResultTable):
    """A table whose configurations all have the same knobs.

    It is a whole grid if every combination of its knobs' values is there, and it has two knobs at least; a search may
    then take a configuration again, as it might train it again. Of any other table it may take each once.

    Args:
        configurations: All different; the values of the knobs. An option is kept as its label.
        curves: Of each configuration, one for each recorded run, at least one.
        domains: Of each knob; None: found from the values (``domain_of``).
        once: Whether a configuration may be taken once only; None: unless it is a whole grid.
    """

    def __init__(
        self,
        name: str,
        *,
        measure: str,
        direction: Direction,
        configurations: Sequence[Mapping[str, Value]],
        curves: Sequence[Sequence[Curve]],
        domains: Mapping[str, Domain] | None = None,
        once: bool | None = None,
        has_seconds: bool = True,
    ) -> None:
        self.name, self.measure, self.objective = name, measure, objective_for(direction)
        self._curves, self.has_seconds = curves, has_seconds
        columns = {knob: [row[knob] for row in configurations] for knob in configurations[0]}
        self.domains = domains or {knob: domain_of(values) for knob, values in columns.items()}
        labelled = {knob for knob, domain in self.domains.items() if isinstance(domain, Choice)}
        self.configurations = [
            {knob: str(value) if knob in labelled else value for knob, value in row.items()} for row in configurations
        ]
        grid = math.prod(len(set(values)) for values in columns.values())
        self.once = once if once is not None else len(columns) < 2 or len(configurations) < grid

    def curve(self, configuration: int, *, run: int, seed: int) -> Curve:
        """Return a recorded run; the first of a search is drawn by its seed, and the others follow in order."""
        curves = self._curves[configuration]
        if len(curves) == 1:
            return curves[0]
        digest = hashlib.sha256(f"{seed}/{configuration}".encode()).digest()
        return curves[(int.from_bytes(digest[:8], "big") + run) % len(curves)]

    def value(self, configuration: int) -> float | None:
        """Return the mean of the last values of the runs that did not fail."""
        metric = self.objective.metric
        curves = [one for one in self._curves[configuration] if one.reports and not one.problem]
        return statistics.fmean(one.reports[-1].metrics[metric] for one in curves) if curves else None


def domain_of(values: Sequence[Value]) -> Domain:
    """Return the domain of a knob with these values.

    Texts and truth values are options, in the order in which they appear, and so is a number that never changes.
    Numbers are a range, of whole numbers if all are whole; it is logarithmic if their median lies nearer to the middle
    of the logarithms than to that of the numbers.
    """
    numbers = [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(numbers) < len(values) or len(set(numbers)) < 2:
        return Choice(tuple(dict.fromkeys(str(one) for one in values)))
    low, high, median = min(numbers), max(numbers), statistics.median(sorted(set(numbers)))
    log = False
    if low > 0:
        in_numbers = (median - low) / (high - low)
        in_logarithms = math.log(median / low) / math.log(high / low)
        log = abs(in_logarithms - 0.5) < abs(in_numbers - 0.5) - 1e-9
    if all(isinstance(one, int) for one in numbers):
        return Int(int(low), int(high), log=log)
    return Real(float(low), float(high), log=log)
