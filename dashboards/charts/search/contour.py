"""The objective over two searched knobs: its contours between the trials, and the trials themselves."""

import math
from collections.abc import Sequence
from typing import Any

from metaloom.dashboards.charts.base import Chart, ChartChoice, ChartKind, ChartSource, ChartTable
from metaloom.dashboards.charts.palette import GREY, SEQUENTIAL
from metaloom.dashboards.charts.trial_points import (
    by_state,
    choice,
    knob_axis,
    objective_choice,
    on_axis,
    readable,
    shown,
    state_marker,
    trial_text,
)
from metaloom.dashboards.trial_values import (
    is_log,
    is_numeric,
    knob_values,
    options_of,
    searched_knobs,
    value_of,
    valued,
)
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial_record import TrialRecord

FEWEST = 8  # trials at different places: fewer give no contours
GRID = 40  # places a side


def draw(source: ChartSource) -> Chart | None:
    """Draw the trials that have both knobs; contours where both are numbers, means where both are options."""
    search = source.store.record(source.name)
    aim = objective_choice(source, search)
    trials = valued(search, aim.chosen)
    knobs = numbers_first(trials)
    if len(knobs) < 2:
        return None
    across = choice(source, "x", "Across", [(one, one) for one in knobs], knobs[0])
    others = [one for one in knobs if one != across.chosen]
    # a knob that the other control has just taken is no mistake of the reader
    given = source.asked.get("y", "")
    up = ChartChoice("y", "Up", [(one, one) for one in others], given if given in others else others[0])
    having = [one for one in trials if across.chosen in one.knobs and up.chosen in one.knobs]
    surface, note = _surface(search, having, across.chosen, up.chosen, aim.chosen)
    values = [value_of(search, one, aim.chosen) for one in having]
    points = _points(search, having, across.chosen, up.chosen, aim.chosen, large=not surface)
    return Chart(
        title=f"{readable(aim.chosen)} over {across.chosen} and {up.chosen}",
        data=_coloured([*surface, *points], values, readable(aim.chosen)),
        layout={
            "height": 440,
            "xaxis": knob_axis(having, across.chosen),
            "yaxis": knob_axis(having, up.chosen),
        },
        table=ChartTable(
            ("trial", "state", across.chosen, up.chosen, readable(aim.chosen)),
            [
                (one.number, one.state, one.knobs[across.chosen], one.knobs[up.chosen], value)
                for one, value in zip(having, values, strict=True)
            ],
        ),
        note=note,
        choices=shown(across, up, aim),
    )


def numbers_first(trials: Sequence[TrialRecord]) -> list[str]:
    """List the searched knobs: those of numbers that most trials have come first, for contours need two of them."""
    found = {knob: list(knob_values(trials, knob).values()) for knob in searched_knobs(trials)}
    return sorted(found, key=lambda knob: (not is_numeric(found[knob]), -len(found[knob])))


def _surface(
    search: SearchRecord, trials: Sequence[TrialRecord], across: str, up: str, metric: str
) -> tuple[list[dict[str, Any]], str]:
    """Return what lies under the points, and what it is, or why there is nothing."""
    numeric = [is_numeric(list(knob_values(trials, knob).values())) for knob in (across, up)]
    values = [value_of(search, one, metric) for one in trials]
    if not any(numeric):
        return [_means(trials, across, up, values)], "Cells are means over their trials."
    if not all(numeric):
        return [], "One of the knobs is no number: the colours of the points are their values."
    logs = [is_log(trials, knob) for knob in (across, up)]
    places = [(_place(one, across, logs[0]), _place(one, up, logs[1])) for one in trials]
    if len(set(places)) < FEWEST:
        return [], f"Contours need trials at {FEWEST} different places; there are {len(set(places))}."
    grid = between(places, values)
    if grid is None:
        return [], "All trials lie on a line: there is nothing between them to draw contours of."
    lows, highs, heights = grid
    surface = {
        "type": "contour",
        "x": _spread(lows[0], highs[0], logs[0]),
        "y": _spread(lows[1], highs[1], logs[1]),
        "z": heights,
        "opacity": 0.8,
        "contours": {"coloring": "fill"},
        "line": {"width": 0.5},
        "hovertemplate": "%{x}, %{y}: about %{z}<extra></extra>",
    }
    return [surface], "Between the trials the value is interpolated linearly; outside of them nothing is drawn."


def _coloured(traces: Sequence[dict[str, Any]], values: Sequence[float], title: str) -> list[dict[str, Any]]:
    """Give all traces one scale of colours, and the first one its bar.

    Plotly has colour axes for this, but does not end where a contour and markers share one (4.1.1).
    """
    low, high = min(values, default=0.0), max(values, default=1.0)
    found = []
    for place, trace in enumerate(traces):
        bar = {"colorscale": SEQUENTIAL, "showscale": place == 0, "colorbar": {"title": {"text": title}}}
        if trace["type"] == "scatter":
            found.append({**trace, "marker": {**trace["marker"], **bar, "cmin": low, "cmax": high}})
        else:
            found.append({**trace, **bar, "zmin": low, "zmax": high})
    return found


def _place(trial: TrialRecord, knob: str, log: bool) -> float:
    value = float(trial.knobs[knob])
    return math.log10(value) if log else value


def between(
    places: Sequence[tuple[float, float]], values: Sequence[float]
) -> tuple[tuple[float, float], tuple[float, float], list[list[float]]] | None:
    """Interpolate values linearly over the triangles between their places.

    Returns:
        The lower ends of both axes, their upper ends, and the heights [GRID, GRID], rows going up; NaN outside of the
        trials. None where the places lie on a line.
    """
    import numpy as np
    from scipy.interpolate import LinearNDInterpolator
    from scipy.spatial import QhullError

    points = np.asarray(places, dtype=float)
    low, high = points.min(axis=0), points.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    try:
        surface = LinearNDInterpolator((points - low) / span, np.asarray(values, dtype=float))
    except QhullError:
        return None
    sides = np.linspace(0.0, 1.0, GRID)
    heights = surface(*np.meshgrid(sides, sides))
    return (float(low[0]), float(low[1])), (float(high[0]), float(high[1])), heights.tolist()


def _spread(low: float, high: float, log: bool) -> list[float]:
    """Return the places of the grid on an axis, in the knob's own units."""
    places = [low + (high - low) * number / (GRID - 1) for number in range(GRID)]
    return [10.0**place for place in places] if log else places


def _means(trials: Sequence[TrialRecord], across: str, up: str, values: Sequence[float]) -> dict[str, Any]:
    """Return the mean value of each pair of options."""
    columns, rows = options_of(knob_values(trials, across)), options_of(knob_values(trials, up))
    cells: dict[tuple[str, str], list[float]] = {}
    for one, value in zip(trials, values, strict=True):
        cells.setdefault((str(one.knobs[up]), str(one.knobs[across])), []).append(value)
    found = {pair: math.fsum(mine) / len(mine) for pair, mine in cells.items()}
    return {
        "type": "heatmap",
        "x": columns,
        "y": rows,
        "z": [[found.get((row, column)) for column in columns] for row in rows],
        "hovertemplate": "%{x}, %{y}: mean %{z}<extra></extra>",
    }


def _points(
    search: SearchRecord, trials: Sequence[TrialRecord], across: str, up: str, metric: str, *, large: bool
) -> list[dict[str, Any]]:
    traces = []
    for state, group in by_state(trials).items():
        values = [value_of(search, one, metric) for one in group]
        own = {"color": values, "line": {"color": GREY, "width": 1}}
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": state,
                "x": on_axis(group, across),
                "y": on_axis(group, up),
                "text": [trial_text(search, one, metric) for one in group],
                "hoverinfo": "text",
                "marker": {**state_marker(state, 9 if large else 7), **own},
            }
        )
    return traces


CHART = ChartKind(
    "contour", "Objective over two knobs", draw, order=60, needs="It needs two searched knobs, and trials with values."
)
