"""The objective by each searched knob: a small panel a knob, or one large one."""

from collections.abc import Sequence
from typing import Any

from metaloom.dashboards.charts.base import Chart, ChartKind, ChartSource, ChartTable
from metaloom.dashboards.charts.trial_points import (
    by_state,
    choice,
    error_bars,
    framed,
    interval_cells,
    knob_axis,
    objective_choice,
    on_axis,
    readable,
    shown,
    state_marker,
    trial_text,
)
from metaloom.dashboards.trial_values import searched_knobs, value_of, valued
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial_record import TrialRecord

ALL = "all"
MOST_PANELS = 12
COLUMNS = 3
PANEL_HEIGHT = 240
LONG = 200  # trials: more of them have intervals in the table alone


def draw(source: ChartSource) -> Chart | None:
    """Draw the trials by their values of one knob, or of all."""
    search = source.store.record(source.name)
    aim = objective_choice(source, search)
    trials = valued(search, aim.chosen)
    knobs = searched_knobs(trials)
    if not knobs:
        return None
    knob = choice(source, "knob", "Knob", [(ALL, "all"), *((one, one) for one in knobs)], ALL)
    drawn = knobs[:MOST_PANELS] if knob.chosen == ALL else [knob.chosen]
    data, layout = list[dict[str, Any]](), _grid(len(drawn))
    up, far = framed({}, (value_of(search, one, aim.chosen) for one in trials))
    for place, name in enumerate(drawn):
        having = [one for one in trials if name in one.knobs]
        data += _points(search, having, name, aim.chosen, place, bars=len(drawn) == 1 and len(trials) <= LONG)
        mark = str(place + 1) if place else ""
        layout[f"xaxis{mark}"] = {**knob_axis(having, name), **layout[f"xaxis{mark}"]}
        layout[f"yaxis{mark}"] |= up | {"title": {"text": readable(aim.chosen) if place % COLUMNS == 0 else ""}}
    left = (
        f"The first {MOST_PANELS} of {len(knobs)} knobs are drawn; choose another above."
        if len(knobs) > MOST_PANELS
        else ""
    )
    note = f"A panel has the trials that have the knob. {far}".strip()
    table = _table(search, trials, drawn, aim.chosen)
    return Chart(f"{readable(aim.chosen)} by knob", data, layout, table, f"{note} {left}".strip(), shown(knob, aim))


def _grid(panels: int) -> dict[str, Any]:
    """Return a layout with a pair of axes for each panel, at most ``COLUMNS`` beside each other."""
    columns = min(COLUMNS, panels)
    rows = -(-panels // columns)
    layout: dict[str, Any] = {"height": 360 if panels == 1 else 80 + PANEL_HEIGHT * rows}
    for place in range(panels):
        mark = str(place + 1) if place else ""
        row, column = divmod(place, columns)
        left, bottom = column / columns, 1 - (row + 1) / rows
        across = [left + (0.06 if column else 0.0), left + 1 / columns - 0.01]
        up = [bottom + (0.28 / rows if rows > 1 else 0.0), bottom + 1 / rows]
        layout[f"xaxis{mark}"] = {"domain": across, "anchor": f"y{mark}"}
        layout[f"yaxis{mark}"] = {"domain": up, "anchor": f"x{mark}"}
    return layout


def _points(
    search: SearchRecord, trials: Sequence[TrialRecord], knob: str, metric: str, place: int, *, bars: bool
) -> list[dict[str, Any]]:
    mark, traces = str(place + 1) if place else "", []
    for state, group in by_state(trials).items():
        values = [value_of(search, one, metric) for one in group]
        trace = {
            "type": "scatter",
            "mode": "markers",
            "name": state,
            "legendgroup": state,
            "showlegend": place == 0,
            "x": on_axis(group, knob),
            "y": values,
            "xaxis": f"x{mark}",
            "yaxis": f"y{mark}",
            "marker": state_marker(state, 7 if bars else 6),
        }
        if bars:
            texts = [trial_text(search, one, metric) for one in group]
            trace |= {"error_y": error_bars(group, values, metric), "text": texts, "hoverinfo": "text"}
        else:
            numbers = [one.number for one in group]
            trace |= {"customdata": numbers, "hovertemplate": "trial %{customdata}: %{x}, %{y}<extra></extra>"}
        traces.append(trace)
    return traces


def _table(search: SearchRecord, trials: Sequence[TrialRecord], knobs: Sequence[str], metric: str) -> ChartTable:
    rows = [
        (
            one.number,
            one.state,
            *(one.knobs.get(knob) for knob in knobs),
            value_of(search, one, metric),
            *interval_cells(one, metric),
        )
        for one in trials
        if any(knob in one.knobs for knob in knobs)
    ]
    return ChartTable(("trial", "state", *knobs, readable(metric), "low", "high"), rows)


CHART = ChartKind("slices", "Objective by knob", draw, order=70, needs="No trial with a value has a searched knob.")
