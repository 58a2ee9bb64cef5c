"""Columns of one trial's episodes, read without the others, and how the trial adapts in them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaloom.dashboards.episodes.part_reading import Part, in_schema, read_whole
from metaloom.workers.records import names as records
from metaloom.workers.records.parts import DamagedPart
from metaloom.workers.records.results import ACCURACY, INNER_STEPS, PRESENTATIONS, mean_interval, quantile
from metaloom.workers.records.trial_record import TrialRecord

if TYPE_CHECKING:
    import pyarrow as pa

EPISODES_OF_A_CURVE = 2000  # the newest; more change the curve by less than the width of its line
QUARTILES = (0.25, 0.75)


@dataclass(frozen=True)
class AdaptationCurve:
    """A metric of the query sets before adaptation and after each inner step, or earlier example of a class.

    Attributes:
        metric: ``accuracy`` or ``loss``.
        phase: ``test`` or ``validation``.
        step: Outer steps done.
        episodes: Their number.
        means: Over the episodes; NaN where it was not measured.
        lows: Lower ends of the means' 95% intervals.
        highs: Their upper ends.
        quarters: First quartiles over the episodes.
        three_quarters: Third quartiles.
        of: What the places count.
    """

    metric: str
    phase: str
    step: int
    episodes: int
    means: list[float]
    lows: list[float]
    highs: list[float]
    quarters: list[float]
    three_quarters: list[float]
    of: str


def read_columns(
    directory: Path, trial: TrialRecord, columns: Sequence[str], condition: Any
) -> "tuple[pa.Table, tuple[DamagedPart, ...]]":
    """Return columns of the trial's rows that meet a condition, in the order of the episodes, and its damaged parts.

    Args:
        directory: The trial's.
        trial: Its record, which knows the parts' digests.
        columns: Names of the columns, with those of the condition.
        condition: An expression of pyarrow.
    """
    import pyarrow as pa

    folder, tables, damaged = directory / records.EPISODES_FOLDER, [], []
    on_disk = [path.name for path in records.parts_of(folder)]
    for name in dict.fromkeys([*sorted(trial.parts), *on_disk]):
        part = Part(trial.number, folder / name, 0, 0)
        table, reason = read_whole(part, trial.parts.get(name), columns)
        if table is None:
            damaged.append(DamagedPart(trial.number, part.path, reason))
        else:
            tables.append(in_schema(table, columns).filter(condition))
    return pa.concat_tables(tables or [in_schema(pa.table({}), columns)]), tuple(damaged)


def measured_steps(directory: Path, trial: TrialRecord) -> dict[str, list[int]]:
    """Return the outer steps at which each phase was measured after every inner step: the test's and validations'."""
    import pyarrow.compute as pc

    phases = (records.TEST, records.VALIDATION)
    table, _ = read_columns(directory, trial, ["phase", "step"], pc.field("phase").isin(phases))
    found = {
        phase: sorted(set(table.filter(pc.field("phase") == phase).column("step").to_pylist())) for phase in phases
    }
    return {phase: steps for phase, steps in found.items() if steps}


def adaptation_curves(
    directory: Path, trial: TrialRecord, phase: str, step: int
) -> tuple[tuple[AdaptationCurve, ...], tuple[DamagedPart, ...]]:
    """Return how the trial adapts in the episodes of a phase at an outer step: the loss, and the accuracy if any."""
    import pyarrow.compute as pc

    condition = (pc.field("phase") == phase) & (pc.field("step") == step)
    table, damaged = read_columns(directory, trial, ["phase", "step", "losses", "accuracies", "shots"], condition)
    table = table.slice(max(0, table.num_rows - EPISODES_OF_A_CURVE))
    shots, curves = table.column("shots").to_pylist(), []
    for metric, column in (("loss", "losses"), (ACCURACY, "accuracies")):
        rows = table.column(column).to_pylist()
        if rows and rows[0]:
            curves.append(curve_of(rows, metric, phase=phase, step=step, in_order=not shots[0]))
    return tuple(curves), damaged


def curve_of(
    rows: Sequence[Sequence[float | None]], metric: str, *, phase: str, step: int, in_order: bool
) -> AdaptationCurve:
    """Return the curve of some episodes, each with its values from before adaptation on."""
    measured = [[value for value in values if value is not None] for values in zip(*rows, strict=False)]
    each = [mean_interval(values, metric=metric) if values else (math.nan,) * 3 for values in measured]
    means, lows, highs = (list(bound) for bound in zip(*each, strict=True))
    first, third = ([quantile(one, share) if one else math.nan for one in measured] for share in QUARTILES)
    of = PRESENTATIONS if in_order else INNER_STEPS  # a sequence has no support set
    return AdaptationCurve(metric, phase, step, len(rows), means, lows, highs, first, third, of)


@dataclass(frozen=True)
class NormOfStep:
    """The norm of an outer step's hypergradient before clipping."""

    step: int
    norm: float


def hypergradient_norms(directory: Path, trial: TrialRecord) -> list[NormOfStep]:
    """Return the norms of all outer steps, by the records of their first episodes."""
    import pyarrow.compute as pc

    columns = ["phase", "step", "hypergradient_norm"]
    table, _ = read_columns(directory, trial, columns, pc.field("phase") == records.TRAIN)
    norms: dict[int, float] = {}
    for step, norm in zip(*(table.column(name).to_pylist() for name in ("step", "hypergradient_norm")), strict=True):
        if norm is not None:
            norms.setdefault(step, norm)
    return [NormOfStep(step, norms[step]) for step in sorted(norms)]
