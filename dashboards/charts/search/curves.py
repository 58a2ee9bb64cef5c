"""Learning curves of all trials over their outer steps, with the scheduler's rungs and why each trial was stopped."""

import math
from collections.abc import Sequence
from typing import Any

from metaloom.dashboards.charts.base import Chart, ChartKind, ChartSource, ChartTable
from metaloom.dashboards.charts.palette import GREY, PINK, STATE_COLOURS, STATE_MARKERS, translucent
from metaloom.dashboards.charts.trial_points import (
    MOST_POINTS,
    by_state,
    framed,
    objective_choice,
    readable,
    rung_of,
    rungs_of,
    shown,
    state_marker,
    trial_text,
)
from metaloom.dashboards.trial_values import value_of
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial_record import TrialRecord

Curve = Sequence[tuple[int, float]]  # outer step and value
STATE_DASHES = {
    records.FINISHED: "solid",
    records.STOPPED: "dash",
    records.FAILED: "dot",
    records.RUNNING: "solid",
    records.WAITING: "dashdot",
}


def draw(source: ChartSource) -> Chart | None:
    """Draw the value of each report of each trial; the best trial in front, with its intervals."""
    search = source.store.record(source.name)
    aim = objective_choice(source, search)
    curves = {one.number: curve_of(one, aim.chosen) for _, one in sorted(search.trials.items())}
    trials = [search.trials[number] for number, curve in curves.items() if curve]
    if not trials:
        return None
    every = thinning(sum(map(len, curves.values())), MOST_POINTS)
    best = ranking.best(search)
    data = [_lines(group, state, curves, every) for state, group in by_state(trials).items()]
    data += [_ends(search, group, state, curves, aim.chosen) for state, group in by_state(trials).items()]
    data += [] if best is None or best not in trials else _best(best, aim.chosen)
    rungs = rungs_of(source, search)
    up, far = framed({"title": {"text": readable(aim.chosen)}}, (value for one in curves.values() for _, value in one))
    layout = {
        "xaxis": {"title": {"text": "outer steps"}},
        "yaxis": up,
        "shapes": [_rung(step) for step in rungs],
        "annotations": [_rung_name(step) for step in rungs],
    }
    title, note = f"Learning curves: {readable(aim.chosen)}", f"{_note(rungs, every)} {far}".strip()
    return Chart(title, data, layout, _table(search, trials, aim.chosen, rungs), note, shown(aim))


def curve_of(trial: TrialRecord, metric: str) -> Curve:
    """Return the finite values of a trial's reports, by outer step."""
    found = ((one.step, one.metrics.get(metric, math.nan)) for one in trial.reports)
    return [(step, value) for step, value in found if math.isfinite(value)]


def thinning(points: int, most: int) -> int:
    """Return of how many reports one is drawn, so that at most about ``most`` points are; a curve's ends stay."""
    return max(1, math.ceil(points / most))


def thinned(curve: Curve, every: int) -> Curve:
    """Return each ``every``-th point of a curve, and its last one."""
    return [*curve[:-1:every], curve[-1]]


def _lines(trials: Sequence[TrialRecord], state: str, curves: dict[int, Curve], every: int) -> dict[str, Any]:
    """Return the curves of the trials in a state as one trace, with gaps between them."""
    across, up, numbers = list[int | None](), list[float | None](), list[int | None]()
    for trial in trials:
        points = thinned(curves[trial.number], every)
        across += [*(step for step, _ in points), None]
        up += [*(value for _, value in points), None]
        numbers += [*[trial.number] * len(points), None]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": state,
        "legendgroup": state,
        "x": across,
        "y": up,
        "customdata": numbers,
        "hovertemplate": "trial %{customdata}, step %{x}: %{y}<extra></extra>",
        "line": {"color": translucent(STATE_COLOURS[state], 0.55), "width": 1, "dash": STATE_DASHES[state]},
    }


def _ends(
    search: SearchRecord, trials: Sequence[TrialRecord], state: str, curves: dict[int, Curve], metric: str
) -> dict[str, Any]:
    """Return the last points of the trials in a state, whose hover texts say why each was stopped."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"{state}, last report",
        "legendgroup": state,
        "showlegend": False,
        "x": [curves[one.number][-1][0] for one in trials],
        "y": [curves[one.number][-1][1] for one in trials],
        "text": [trial_text(search, one, metric) for one in trials],
        "hoverinfo": "text",
        "marker": state_marker(state, 6),
    }


def _best(trial: TrialRecord, metric: str) -> list[dict[str, Any]]:
    """Return the curve of the best trial, and the band of its intervals where the metric is of episodes."""
    curve = curve_of(trial, metric)
    line = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"trial {trial.number} (best)",
        "x": [step for step, _ in curve],
        "y": [value for _, value in curve],
        "line": {"color": PINK, "width": 3},
        "marker": {"color": PINK, "symbol": STATE_MARKERS[trial.state], "size": 8},
    }
    of_episodes = [one for one in trial.reports if one.scored == metric]
    if not of_episodes:
        return [line]
    steps = [one.step for one in of_episodes]
    band = {
        "type": "scatter",
        "mode": "lines",
        "name": "its 95% interval",
        "x": [*steps, *steps[::-1]],
        "y": [one.interval[1] for one in of_episodes] + [one.interval[0] for one in of_episodes[::-1]],
        "fill": "toself",
        "fillcolor": translucent(PINK, 0.2),
        "line": {"width": 0, "color": PINK},
        "hoverinfo": "skip",
    }
    return [band, line]


def _rung(step: int) -> dict[str, Any]:
    line = {"color": GREY, "width": 1, "dash": "dot"}
    return {"type": "line", "xref": "x", "yref": "paper", "x0": step, "x1": step, "y0": 0, "y1": 1, "line": line}


def _rung_name(step: int) -> dict[str, Any]:
    place = {"xref": "x", "yref": "paper", "x": step, "y": 1, "yanchor": "bottom"}
    return {**place, "text": f"rung {step}", "showarrow": False, "font": {"size": 10}}


def _table(search: SearchRecord, trials: Sequence[TrialRecord], metric: str, rungs: Sequence[int]) -> ChartTable:
    rows = []
    for one in trials:
        last = value_of(search, one, metric)
        rows.append((one.number, one.state, one.step, len(one.reports), last, rung_of(one, rungs), one.reason or ""))
    return ChartTable(
        ("trial", "state", "steps", "reports", f"last {readable(metric)}", "rung", "why it was stopped"), rows
    )


def _note(rungs: Sequence[int], every: int) -> str:
    lines = ["The band is the best trial's 95% interval over validation episodes."]
    if rungs:
        lines.append("Dotted lines are the rungs at which the scheduler compares trials.")
    if every > 1:
        lines.append(f"Of each trial one report in {every} is drawn, and its last one.")
    return " ".join(lines)


CHART = ChartKind("curves", "Learning curves", draw, order=20, needs="No trial has reported the objective.")
