"""The learning curves of a trial: what it is judged by, with its interval, and its losses."""

import math
from collections.abc import Sequence
from typing import Any

from metaloom.dashboards.charts import palette
from metaloom.dashboards.charts.base import Chart, ChartChoice, ChartKind, ChartSource, ChartTable
from metaloom.dashboards.charts.trial_parts import asked_trial, band
from metaloom.dashboards.queries import trial_folder
from metaloom.dashboards.trial_curves import LearningCurve, kind_of_tasks, learning_curves
from metaloom.workers.records.trial import Report

STEPS, EPISODES = "outer steps", "episodes"


def draw(source: ChartSource) -> Chart | None:
    """Draw a panel each of the judged metrics and of the losses, over outer steps or episodes."""
    trial = asked_trial(source)
    if not trial.reports:
        return None
    across = source.asked.get("across", STEPS)
    across = across if across in (STEPS, EPISODES) else STEPS
    places = [report.step if across == STEPS else report.episodes for report in trial.reports]
    panels = learning_curves(trial.reports, kind_of_tasks(trial_folder(source.store.path, source.name, trial.number)))
    shown = [panel for panel in panels if panel]
    traces = [one for axis, panel in enumerate(shown, 1) for one in _traces(panel, places, axis)]
    chosen = ChartChoice("across", "Across", ((STEPS, STEPS), (EPISODES, EPISODES)), across)
    return Chart(
        f"Learning curves of trial {trial.number}",
        traces,
        _layout(shown, across),
        _table(shown, trial.reports),
        _note(trial.notes),
        (chosen,),
    )


def _traces(panel: Sequence[LearningCurve], places: Sequence[int], axis: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    yaxis = "y" if axis == 1 else f"y{axis}"
    for index, curve in enumerate(panel):
        style = palette.trace_style(index + (axis - 1) * 2)
        if curve.intervals:
            lows, highs = zip(*curve.intervals, strict=True)
            found.append(band(places, lows, highs, style["line"]["color"], yaxis=yaxis))
        line = {"x": places, "y": curve.values, "name": curve.name, "mode": "lines+markers", "yaxis": yaxis}
        found.append({**line, **style})
    return found


def _layout(panels: Sequence[Sequence[LearningCurve]], across: str) -> dict[str, Any]:
    titles = ["/".join(dict.fromkeys(curve.name.split(" ", 1)[-1] for curve in panel[:2])) for panel in panels]
    layout: dict[str, Any] = {"xaxis": {"title": {"text": across, "standoff": 4}}, "hovermode": "x unified"}
    share = 1.0 / len(panels)
    for place, title in enumerate(titles):
        name = "yaxis" if place == 0 else f"yaxis{place + 1}"
        top, gap = 1.0 - place * share, 0.06 if place < len(panels) - 1 else 0.0
        layout[name] = {"title": {"text": title}, "nticks": 5, "domain": [max(0.0, top - share) + gap, top]}
    layout["xaxis"]["anchor"] = "y" if len(panels) == 1 else f"y{len(panels)}"
    return layout


def _table(panels: Sequence[Sequence[LearningCurve]], reports: Sequence[Report]) -> ChartTable:
    curves = [curve for panel in panels for curve in panel]
    heads = ["step", "episodes", "seconds"]
    for curve in curves:
        heads += [curve.name, *(["95% low", "95% high"] if curve.intervals else [])]
    rows = []
    for index, report in enumerate(reports):
        row: list[Any] = [report.step, report.episodes, report.seconds]
        for curve in curves:
            row += [curve.values[index], *(curve.intervals[index] if curve.intervals else ())]
        rows.append([None if isinstance(cell, float) and not math.isfinite(cell) else cell for cell in row])
    return ChartTable(heads, rows)


def _note(notes: Sequence[str]) -> str:
    """Say where the last point is of an earlier step."""
    kept = next((note for note in notes if note.startswith("kept the meta-knowledge")), "")
    band = "Training metrics are means over the outer steps since the report before."
    return f"{band} The trial {kept}: the last point has its validation." if kept else band


CHART = ChartKind("trial-learning", "Learning curves", draw, order=10, needs="The trial has not reported.")
