"""Grid search over a conditional space: trial n is the n-th leaf of the tree of choices."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from optuna.samplers import BaseSampler, RandomSampler

from metaloom.learners.domains import Choice, Int
from metaloom.learners.errors import BadInput
from metaloom.orchestrator.proposing.samplers.base import Define, Sampler
from metaloom.search_spaces.knobs.sampling import Domain, Suggest, Value
from metaloom.search_spaces.sections.strategies import SAMPLERS

POINTS = 5  # evenly spaced values of a number with more values


@SAMPLERS.register("grid")
@dataclass(frozen=True)
class Grid(Sampler):
    """Every combination once; lists of options and small whole-number ranges only."""

    finite: ClassVar[bool] = True
    needs_knobs: ClassVar[bool] = True

    def build(self, seed: int, define: Define) -> BaseSampler:
        """Return the sampler of knobs that a trial is not given."""
        return RandomSampler(seed=seed)

    def point(self, number: int, define: Define) -> Mapping[str, Any] | None:
        """Return the values of leaf ``number``, from 0 in depth-first order, or None beyond the last.

        A contradictory combination counts as a leaf: its trial fails with the reason.
        """
        path: list[int] = []
        for leaf in range(number + 1):
            walk = _Walk(path)
            with contextlib.suppress(BadInput):  # the same error is recorded when the trial is made
                define(walk)
            following = walk.next_path()
            if leaf == number:
                return walk.values
            if following is None:
                break
            path = following
        return None


class _Walk(Suggest):
    """Follows ``path`` (one index per knob), and then takes first options."""

    def __init__(self, path: list[int]) -> None:
        self._path = path
        self._taken: list[tuple[int, int]] = []  # index, number of options
        self.values: dict[str, Any] = {}

    def next_path(self) -> list[int] | None:
        """Return the path of the next leaf, or None after the last."""
        taken = list(self._taken)
        while taken:
            index, options = taken.pop()
            if index + 1 < options:
                return [earlier for earlier, _ in taken] + [index + 1]
        return None

    def value(self, name: str, domain: Domain) -> Value:
        """Take one of the domain's values, of POINTS of them where a range has more."""
        if name not in self.values:
            depth, options = len(self._taken), _options(domain)
            index = self._path[depth] if depth < len(self._path) else 0
            self._taken.append((index, len(options)))
            self.values[name] = options[index]
        return cast(Value, self.values[name])


def _options(domain: Domain) -> Sequence[Value]:
    if isinstance(domain, Choice):
        return domain.options
    spaced = _spaced(domain.low, domain.high, log=domain.log)
    if (isinstance(domain, Int) or domain.step) and domain.searched_values() <= POINTS:
        step = domain.step or 1
        spaced = [domain.low + index * step for index in range(domain.searched_values())]
    return sorted({domain.steps_to(value) for value in spaced})


def _spaced(low: float, high: float, *, log: bool) -> list[float]:
    """Return POINTS numbers from low to high, both included, evenly spaced (in the logarithm if ``log``)."""
    if log:
        return [low, *map(math.exp, _spaced(math.log(low), math.log(high), log=False)[1:-1]), high]
    return [low, *(low + (high - low) * index / (POINTS - 1) for index in range(1, POINTS - 1)), high]
