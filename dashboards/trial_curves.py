"""The learning curves and the costs of a trial, by its reports, as charts of a trial show them."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from metaloom.workers.records import names as records
from metaloom.workers.records.results import in_units
from metaloom.workers.records.trial import Report

NAN = (math.nan, math.nan)


@dataclass(frozen=True)
class LearningCurve:
    """A metric of a trial over its reports.

    Attributes:
        name: In words, such as ``validation accuracy``.
        values: By report; NaN where one has none.
        intervals: 95%, by report; None where the metric has none.
    """

    name: str
    values: list[float]
    intervals: list[tuple[float, float]] | None = None


def learning_curves(reports: Sequence[Report], kind: str) -> tuple[list[LearningCurve], list[LearningCurve]]:
    """Return what the trial is judged by, and its losses.

    The first are the accuracy of validation, in all and by data set; or the root mean squared error in the units of the
    target; or in control the return, which is minus the loss. They are empty where the loss is all there is.

    Args:
        reports: The trial's.
        kind: Of its tasks.
    """
    if not reports:
        return [], []
    losses = [
        _of(reports, records.VALIDATION_LOSS, "validation loss"),
        _of(reports, records.TRAIN_LOSS, "training loss"),
    ]
    constant = _of(reports, records.VALIDATION_CONSTANT, "loss of predicting the mean target")
    last, by_source = reports[-1].metrics, _by_source(reports)
    if records.VALIDATION_ACCURACY in last:
        names = {records.VALIDATION_ACCURACY: "validation accuracy", records.TRAIN_ACCURACY: "training accuracy"}
        judged = [*(_of(reports, metric, name) for metric, name in names.items()), *by_source]
    elif kind == "control":
        names = {records.VALIDATION_LOSS: "validation return", records.TRAIN_LOSS: "training return"}
        curves = [*(_of(reports, metric, name) for metric, name in names.items()), *by_source]
        judged, losses = [_mapped(curve, _minus) for curve in curves], []
    else:
        judged = [_rmse(reports)] if records.VALIDATION_RMSE in last else []
        losses = [*losses, constant, *by_source]
    return [one for one in judged if _is_measured(one)], [one for one in losses if _is_measured(one)]


def kind_of_tasks(directory: Path) -> str:
    """Return the kind of a trial's tasks; empty before it has begun."""
    path = directory / records.TASK_FILE
    return str(json.loads(path.read_text()).get("kind", "")) if path.is_file() else ""


def _of(reports: Sequence[Report], metric: str, name: str) -> LearningCurve:
    values = [report.metrics.get(metric, math.nan) for report in reports]
    scored = any(report.scored == metric for report in reports)
    intervals = [report.interval if report.scored == metric else NAN for report in reports]
    return LearningCurve(name, values, intervals if scored else None)


def _by_source(reports: Sequence[Report]) -> list[LearningCurve]:
    """Return the validation of each data set, where there are several."""
    missing = (math.nan, *NAN, 0)
    found = []
    for source in dict.fromkeys(name for report in reports for name in report.by_source):
        each = [report.by_source.get(source, missing) for report in reports]
        found.append(LearningCurve(source, [one[0] for one in each], [(one[1], one[2]) for one in each]))
    return found


def _minus(value: float) -> float:
    return -value


def _mapped(curve: LearningCurve, change: Callable[[float], float]) -> LearningCurve:
    """Return a curve of the changed values; the ends of an interval are put in order."""
    intervals = curve.intervals and [_sorted(change(low), change(high)) for low, high in curve.intervals]
    return LearningCurve(curve.name, list(map(change, curve.values)), intervals)


def _sorted(low: float, high: float) -> tuple[float, float]:
    return (low, high) if low <= high else (high, low)


def _rmse(reports: Sequence[Report]) -> LearningCurve:
    """Return the root mean squared error with its interval, in the units of the target."""
    values, intervals = [], []
    for report in reports:
        deviation = unit_of(report)
        found = (
            None
            if deviation is None
            else in_units(report.metrics[records.VALIDATION_LOSS], report.interval, None, deviation)
        )
        values.append(math.nan if found is None else found.rmse)
        intervals.append(NAN if found is None else found.interval)
    return LearningCurve("validation root mean squared error", values, intervals)


def unit_of(report: Report) -> float | None:
    """Return the standard deviation that the one target was divided by; None where it was not, or is not known."""
    loss, rmse = (report.metrics.get(name, 0.0) for name in (records.VALIDATION_LOSS, records.VALIDATION_RMSE))
    return rmse / math.sqrt(loss) if loss > 0 and rmse > 0 else None


def _is_measured(curve: LearningCurve) -> bool:
    return any(map(math.isfinite, curve.values))


REST = "checkpoints and rest"
PARTS = {
    records.SAMPLING_SECONDS: "sampling",
    records.INNER_SECONDS: "inner loops",
    records.OUTER_SECONDS: "outer steps",
    records.VALIDATING_SECONDS: "validation",
    records.RECORDING_SECONDS: "recording",
}


def time_split(reports: Sequence[Report]) -> dict[str, list[float]]:
    """Return the seconds of each part between a report and the one before it, by the part's name.

    Parts that a report of an earlier version lacks count among the rest.
    """
    split: dict[str, list[float]] = {name: [] for name in (*PARTS.values(), REST)}
    before = dict.fromkeys((*PARTS, records.SECONDS), 0.0)
    for report in reports:
        now = {name: report.metrics.get(name, before[name]) for name in before}
        spent = {name: max(0.0, now[name] - before[name]) for name in before}
        for metric, name in PARTS.items():
            split[name].append(spent[metric])
        split[REST].append(max(0.0, spent[records.SECONDS] - sum(spent[metric] for metric in PARTS)))
        before = now
    return split


def diagnostics(reports: Sequence[Report]) -> dict[str, list[float]]:
    """Return the estimator's own numbers by report, such as its residual; without the norm of the hypergradient."""
    start = records.DIAGNOSTIC
    found = dict.fromkeys(name for report in reports for name in report.metrics if name.startswith(start))
    found.pop(records.HYPERGRADIENT_NORM, None)
    return {name.removeprefix(start): [report.metrics.get(name, math.nan) for report in reports] for name in found}
