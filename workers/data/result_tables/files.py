"""A table of results in a file of the user's own: columns of knobs, of a value, and perhaps of seconds and steps.

Each row is one value of one configuration. Rows of the same knobs are one configuration: with a column of steps they
are its learning curve, in which a step that comes again begins another recorded run; without one each row is a run. A
row without a value, or with one that is not finite, says that the training failed there.
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metaloom.learners.errors import unknown
from metaloom.search_spaces.knobs.sampling import Value
from metaloom.workers.data.base import DataError
from metaloom.workers.data.result_tables.base import Curve, Direction, curve_of
from metaloom.workers.data.result_tables.rows import RowTable
from metaloom.workers.data.table_files import read_table


@dataclass(frozen=True)
class ResultColumns:
    """Which columns of a file hold what.

    Attributes:
        objective: The value that is judged.
        direction: Whether more of it is better.
        knobs: Empty: all columns but the others.
        seconds: From the beginning of a training to its value; None: a second for each step.
        steps: Of a learning curve, whole numbers from 1; None: each row is a whole training.
    """

    objective: str
    direction: Direction
    knobs: Sequence[str] = ()
    seconds: str | None = None
    steps: str | None = None


@dataclass
class _Run:
    steps: list[int]
    values: list[float]
    seconds: list[float]
    problem: str = ""


def read_results(path: Path, columns: ResultColumns) -> RowTable:
    """Read a CSV, Parquet or Arrow file; raises DataError, with the column and the row."""
    try:
        table = read_table(path)
    except DataError as error:
        raise DataError(str(error).removeprefix("tasks.path: ")) from error
    names = list(table.column_names)
    options = (("--objective", columns.objective), ("--seconds", columns.seconds), ("--step", columns.steps))
    special = {option: name for option, name in options if name}
    for option, name in [*special.items(), *(("--knobs", name) for name in columns.knobs)]:
        if name not in names:
            raise DataError(f"{option}: {path} has no such column: {unknown('column', name, names)}")
    knobs = list(columns.knobs) or [name for name in names if name not in special.values()]
    if both := [name for name in knobs if name in special.values()]:
        raise DataError(f"--knobs: {', '.join(both)} is measured, and cannot be a knob too")
    if not knobs or not table.num_rows:
        raise DataError(f"{path}: there is {'no row' if knobs else 'no column of a knob'} in it")
    rows = _Rows(path, {name: table.column(name).to_pylist() for name in {*knobs, *special.values()}}, columns)
    found = rows.read(knobs)
    if not any(run.values for runs in found.values() for run in runs):
        raise DataError(f"{path}: no row has a value of {columns.objective}")
    whole = max(max(run.steps) for runs in found.values() for run in runs)
    return RowTable(
        path.stem,
        measure=columns.objective,
        direction=columns.direction,
        configurations=[dict(zip(knobs, key, strict=True)) for key in found],
        curves=[[_curve(run, whole, columns) for run in runs] for runs in found.values()],
        has_seconds=columns.seconds is not None,
    )


def _curve(run: _Run, whole: int, columns: ResultColumns) -> Curve:
    seconds = run.seconds if columns.seconds else [float(step) for step in run.steps]
    steps = run.steps[: len(run.values)]
    if not steps:
        return Curve((), problem=run.problem, length=whole)
    curve = curve_of(columns.direction, run.values, seconds=seconds[: len(steps)], steps=steps, length=whole)
    return replace(curve, problem=run.problem)


@dataclass
class _Rows:
    """The cells of a file.

    Attributes:
        path: The file.
        cells: By column.
        columns: Which column holds what.
    """

    path: Path
    cells: dict[str, list[Any]]
    columns: ResultColumns

    def read(self, knobs: Sequence[str]) -> dict[tuple[Value, ...], list[_Run]]:
        """Return the runs of each configuration."""
        kinds, found = {name: self._kind(name) for name in knobs}, dict[tuple[Value, ...], list[_Run]]()
        for row in range(len(self.cells[knobs[0]])):
            key = tuple(kinds[name](self._cell(name, row)) for name in knobs)
            runs, step = found.setdefault(key, []), self._step(row)
            if not runs or runs[-1].problem or step <= runs[-1].steps[-1]:
                runs.append(_Run([], [], []))
            runs[-1].steps.append(step)
            if (value := self._value(row)) is None:
                runs[-1].problem = f"{self.columns.objective} is not finite at step {step}"
            else:
                runs[-1].values.append(value)
            spent = self._number(self.columns.seconds, row) if self.columns.seconds else float(step)
            if spent < (runs[-1].seconds or [0.0])[-1]:
                raise DataError(f"{self._at(row)}: {self.columns.seconds} falls to {spent:g} within one learning curve")
            runs[-1].seconds.append(spent)
        return found

    def _kind(self, name: str) -> type[str] | type[int] | type[float]:
        """Return the type of a knob's values: texts, unless all are numbers."""
        cells = [one for one in self.cells[name] if one is not None]
        if any(isinstance(one, bool) or not isinstance(one, int | float) for one in cells):
            return str
        return int if all(isinstance(one, int) for one in cells) else float

    def _cell(self, name: str, row: int) -> Any:
        cell = self.cells[name][row]
        if cell is None:
            raise DataError(f"{self._at(row)}: column {name} is empty; every configuration needs a value of each knob")
        return cell

    def _value(self, row: int) -> float | None:
        """Return the value that is judged; None where the training failed."""
        cell = self.cells[self.columns.objective][row]
        if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
            return None
        return self._number(self.columns.objective, row)

    def _step(self, row: int) -> int:
        if self.columns.steps is None:
            return 1
        step = self._number(self.columns.steps, row)
        if step != int(step) or step < 1:
            raise DataError(f"{self._at(row)}: {self.columns.steps} is {step:g}; allowed: whole numbers from 1")
        return int(step)

    def _number(self, name: str, row: int) -> float:
        cell = self._cell(name, row)
        if isinstance(cell, str):  # one text makes the numbers of its column texts; that one is to be named
            with contextlib.suppress(ValueError):
                cell = float(cell)
        if isinstance(cell, bool) or not isinstance(cell, int | float) or not math.isfinite(cell):
            raise DataError(f"{self._at(row)}: {name} is {cell!r}; give a finite number")
        return float(cell)

    def _at(self, row: int) -> str:
        return f"{self.path}, row {row + 1}"
