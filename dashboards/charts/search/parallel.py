"""Each trial as a line over the axes of its searched knobs and of its objectives; ranges of the axes choose trials.

Plotly's own parallel coordinates compile code in the browser, which the pages forbid. These are lines on plain axes;
``static/brush.js`` lets the reader draw ranges on them, and dispatches ``brushed`` with the numbers of the trials.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaloom.dashboards.charts.base import Chart, ChartKind, ChartSource, ChartTable
from metaloom.dashboards.charts.palette import GREY, PINK, ramp
from metaloom.dashboards.charts.trial_points import objective_choice, readable, shown, wrapped
from metaloom.dashboards.text import number
from metaloom.dashboards.trial_values import (
    is_log,
    is_numeric,
    knob_values,
    options_of,
    places,
    searched_knobs,
    value_of,
    valued,
)
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial_record import TrialRecord

MOST_KNOBS = 12
MANY = 200  # trials: lines of more are drawn fainter
BINS = 6  # of the objective, each with a colour


@dataclass(frozen=True)
class Axis:
    """One of the parallel axes.

    Attributes:
        name: Of the knob or the metric.
        kind: ``linear``, ``log`` or ``options``.
        ends: The values at its lower and its upper end; the first and the last place of options.
        options: From the lowest up; empty where values are numbers.
        heights: Of the trials that have it, in [0, 1].
    """

    name: str
    kind: str
    ends: tuple[float, float]
    options: Sequence[str]
    heights: Mapping[int, float]

    @property
    def labels(self) -> list[tuple[float, str]]:
        """The heights and texts beside it."""
        if self.options:
            last = max(len(self.options) - 1, 1)
            return [(place / last if len(self.options) > 1 else 0.5, text) for place, text in enumerate(self.options)]
        low, high = self.ends
        return [(0.0, number(low)), (1.0, number(high))] if high > low else [(0.5, number(low))]


def draw(source: ChartSource) -> Chart | None:
    """Draw the trials with a value over their knobs and all objectives."""
    search = source.store.record(source.name)
    aim = objective_choice(source, search)
    trials = valued(search, aim.chosen)
    knobs = searched_knobs(trials)
    if not knobs:
        return None
    aims = search.settings.objectives if search.settings else ()
    others = [one.metric for one in aims if one.metric != aim.chosen]
    axes = [knob_axis_of(trials, knob) for knob in knobs[:MOST_KNOBS]]
    axes += [metric_axis(search, trials, metric) for metric in (*others, aim.chosen)]
    left = f" The first {MOST_KNOBS} of {len(knobs)} knobs are drawn." if len(knobs) > MOST_KNOBS else ""
    return Chart(
        title=f"Knobs and {readable(aim.chosen)}",
        data=_lines(search, trials, axes),
        layout=_layout(trials, axes),
        table=_table(search, trials, knobs, [one.metric for one in aims]),
        note="Drag over an axis, or type below, to choose the trials of a range: the table shows them alone. "
        f"A line leaves out the knobs that its trial does not have.{left}",
        choices=shown(aim),
    )


def knob_axis_of(trials: Sequence[TrialRecord], knob: str) -> Axis:
    """Return the axis of a knob, with its heights as ``metaloom plot --kind parallel`` has them."""
    values = knob_values(trials, knob)
    heights = places(trials, knob)
    if not is_numeric(list(values.values())):
        options = options_of(values)
        return Axis(knob, "options", (0.0, float(len(options) - 1)), options, heights)
    ends = (float(min(values.values())), float(max(values.values())))
    return Axis(knob, "log" if is_log(trials, knob) else "linear", ends, (), heights)


def metric_axis(search: SearchRecord, trials: Sequence[TrialRecord], metric: str) -> Axis:
    """Return the axis of an objective."""
    values = {one.number: value_of(search, one, metric) for one in trials}
    known = {trial: value for trial, value in values.items() if math.isfinite(value)}
    low, high = min(known.values(), default=0.0), max(known.values(), default=0.0)
    heights = {trial: (value - low) / (high - low) if high > low else 0.5 for trial, value in known.items()}
    return Axis(metric, "linear", (low, high), (), heights)


def _lines(search: SearchRecord, trials: Sequence[TrialRecord], axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Return a trace for each colour, the lowest values first, and the best trial in front."""
    aim, best, traces = axes[-1], ranking.best(search), list[dict[str, Any]]()
    opacity = 0.9 if len(trials) <= MANY else 0.45
    low, high = aim.ends
    for place in range(BINS):
        mine = [one for one in trials if min(int(aim.heights[one.number] * BINS), BINS - 1) == place]
        if mine:
            start, end = (low + (high - low) * share / BINS for share in (place, place + 1))
            name = f"{number(start)} to {number(end)}"
            line = {"color": ramp(place / (BINS - 1)), "width": 1.2}
            traces.append({**_trace(mine, axes, name), "line": line, "opacity": opacity})
    if best in trials and best is not None:
        traces.append({**_trace([best], axes, f"trial {best.number} (best)"), "line": {"color": PINK, "width": 3}})
    return traces


def _trace(trials: Sequence[TrialRecord], axes: Sequence[Axis], name: str) -> dict[str, Any]:
    across, up, numbers = list[int | None](), list[float | None](), list[int | None]()
    for trial in trials:
        points = [(at, axis.heights[trial.number]) for at, axis in enumerate(axes) if trial.number in axis.heights]
        across += [*(at for at, _ in points), None]
        up += [*(height for _, height in points), None]
        numbers += [*[trial.number] * len(points), None]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": across,
        "y": up,
        "customdata": numbers,
        "hovertemplate": "trial %{customdata}<extra></extra>",
    }


def _layout(trials: Sequence[TrialRecord], axes: Sequence[Axis]) -> dict[str, Any]:
    ends = list(range(len(axes)))
    beside = {"xref": "x", "yref": "y", "showarrow": False, "xanchor": "left", "xshift": 3, "font": {"size": 10}}
    line = {"type": "line", "xref": "x", "yref": "y", "y0": 0, "y1": 1, "line": {"color": GREY, "width": 1}}
    names = [wrapped(axis.name) + (" (log)" if axis.kind == "log" else "") for axis in axes]
    return {
        "height": 420,
        "dragmode": "select",
        "xaxis": {
            "tickvals": ends,
            "ticktext": names,
            "tickfont": {"size": 10},
            "ticklabeloverflow": "allow",
            "range": [-0.3, len(axes) - 0.4],
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
        },
        "yaxis": {"visible": False, "range": [-0.06, 1.06], "fixedrange": True},
        "shapes": [{**line, "x0": at, "x1": at} for at in ends],
        "annotations": [
            {**beside, "x": at, "y": height, "text": text}
            for at, axis in enumerate(axes)
            for height, text in axis.labels
        ],
        "meta": {
            "trials": [one.number for one in trials],
            "axes": [
                {
                    "name": axis.name,
                    "kind": axis.kind,
                    "ends": axis.ends,
                    "options": axis.options,
                    "heights": [axis.heights.get(one.number) for one in trials],
                }
                for axis in axes
            ],
        },
    }


def _table(
    search: SearchRecord, trials: Sequence[TrialRecord], knobs: Sequence[str], aims: Sequence[str]
) -> ChartTable:
    rows = [
        (
            one.number,
            one.state,
            *(one.knobs.get(knob) for knob in knobs),
            *(value_of(search, one, metric) for metric in aims),
        )
        for one in trials
    ]
    return ChartTable(("trial", "state", *knobs, *map(readable, aims)), rows)


CHART = ChartKind("parallel", "Knobs and objective", draw, order=40, needs="No trial with a value has a searched knob.")
