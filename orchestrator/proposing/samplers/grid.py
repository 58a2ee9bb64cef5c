"""Grid search over a conditional space: trial n is the n-th leaf of the tree of choices."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from optuna.samplers import BaseSampler, RandomSampler

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.proposing.samplers.base import Define, Sampler
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
        """Return the values of leaf ``number`` of the tree of choices."""
        return grid_point(define, number)


def grid_point(define: Define, number: int) -> Mapping[str, Any] | None:
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


class _Walk:
    """A ``Suggest`` that follows ``path`` (one index per knob) and then takes first options."""

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

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        """Take one of POINTS values from low to high."""
        return float(self._take(name, _spaced(low, high, POINTS, log=log)))

    def integer(self, name: str, low: int, high: int, log: bool) -> int:
        """Take one of the whole numbers, or of POINTS of them if there are more."""
        if high - low < POINTS:
            return int(self._take(name, list(range(low, high + 1))))
        return int(self._take(name, sorted({round(value) for value in _spaced(low, high, POINTS, log=log)})))

    def choice(self, name: str, options: tuple[str, ...]) -> str:
        """Take one of the options."""
        return str(self._take(name, list(options)))

    def _take(self, name: str, options: list[Any]) -> Any:
        if name not in self.values:
            depth = len(self._taken)
            index = self._path[depth] if depth < len(self._path) else 0
            self._taken.append((index, len(options)))
            self.values[name] = options[index]
        return self.values[name]


def _spaced(low: float, high: float, points: int, *, log: bool) -> list[float]:
    """Return ``points`` numbers from low to high, both included, evenly spaced (in the logarithm if ``log``)."""
    if points == 1:
        return [low]
    if log:
        inner = _spaced(math.log(low), math.log(high), points, log=False)[1:-1]
        return [low, *map(math.exp, inner), high]
    return [low, *(low + (high - low) * index / (points - 1) for index in range(1, points - 1)), high]
