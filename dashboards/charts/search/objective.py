"""The objective of each trial, by its number or by the time spent on the search, and the best one so far."""

from collections.abc import Mapping, Sequence
from typing import Any

from metaloom.dashboards.charts.base import Chart, ChartKind, ChartSource, ChartTable
from metaloom.dashboards.charts.palette import DASHES, GREY
from metaloom.dashboards.charts.trial_points import (
    by_state,
    choice,
    error_bars,
    framed,
    interval_cells,
    is_maximized,
    objective_choice,
    readable,
    shown,
    state_marker,
    trial_text,
    whole_numbers,
)
from metaloom.dashboards.timeline import timeline_of
from metaloom.dashboards.trial_values import running_best, value_of, valued
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial_record import TrialRecord

BY_NUMBER, BY_TIME = "trials", "time"
LONG = 200  # trials: more of them have intervals in the hover text and the table alone


def draw(source: ChartSource) -> Chart | None:
    """Draw every trial with a value."""
    search = source.store.record(source.name)
    if not valued(search):
        return None
    aim = objective_choice(source, search)
    over = choice(source, "over", "Over", [(BY_NUMBER, "trials"), (BY_TIME, "time")], BY_NUMBER)
    metric, trials = aim.chosen, valued(search, aim.chosen)
    places = _places(source, trials, over.chosen)
    trials = sorted((one for one in trials if one.number in places), key=lambda one: (places[one.number], one.number))
    best = best_so_far(search, trials, metric)
    ends = [min(places.values(), default=0.0), max(places.values(), default=0.0)]
    baselines = _baselines(search, metric, ends)
    data = [*_points(search, trials, places, metric), *_best_line(best, places), *baselines]
    across = {"title": {"text": "seconds of the search, without the time between sessions"}}
    if over.chosen == BY_NUMBER:
        across = whole_numbers({"title": {"text": "trial"}}, places.values())
    lines = [line["y"][0] for line in baselines]
    up, far = framed(
        {"title": {"text": readable(metric)}}, [*(value_of(search, one, metric) for one in trials), *lines]
    )
    return Chart(
        title=f"{readable(metric)} over {'trials' if over.chosen == BY_NUMBER else 'time'}",
        data=data,
        layout={"xaxis": across, "yaxis": up},
        table=_table(search, trials, places, metric, best),
        note=f"{_note(len(trials), bool(baselines))} {far}".strip(),
        choices=shown(over, aim),
    )


def best_so_far(search: SearchRecord, trials: Sequence[TrialRecord], metric: str) -> dict[int, float]:
    """Return the best value up to each finished trial that keeps the constraints, in the order of ``trials``."""
    sure = [one for one in trials if one.state == records.FINISHED and ranking.violation(search, one) == 0]
    values = running_best([value_of(search, one, metric) for one in sure], maximize=is_maximized(search, metric))
    return {one.number: value for one, value in zip(sure, values, strict=True)}


def _places(source: ChartSource, trials: Sequence[TrialRecord], over: str) -> Mapping[int, float]:
    """Return where each trial stands: at its number, or at the time of its last report."""
    if over == BY_NUMBER:
        return {trial.number: trial.number for trial in trials}
    reported = timeline_of(source.store, source.name).reported
    return {trial.number: reported[trial.number] for trial in trials if trial.number in reported}


def _points(
    search: SearchRecord, trials: Sequence[TrialRecord], places: Mapping[int, float], metric: str
) -> list[dict[str, Any]]:
    traces = []
    for state, group in by_state(trials).items():
        values = [value_of(search, one, metric) for one in group]
        trace: dict[str, Any] = {
            "type": "scatter",
            "mode": "markers",
            "name": state,
            "x": [places[one.number] for one in group],
            "y": values,
            "text": [trial_text(search, one, metric) for one in group],
            "hoverinfo": "text",
            "marker": state_marker(state),
        }
        traces.append(trace if len(trials) > LONG else {**trace, "error_y": error_bars(group, values, metric)})
    return traces


def _best_line(best: Mapping[int, float], places: Mapping[int, float]) -> list[dict[str, Any]]:
    if not best:
        return []
    line = {"shape": "hv", "color": GREY, "width": 2}
    across, up = [places[number] for number in best], list(best.values())
    return [{"type": "scatter", "mode": "lines", "name": "best so far", "x": across, "y": up, "line": line}]


def _baselines(search: SearchRecord, metric: str, ends: Sequence[float]) -> list[dict[str, Any]]:
    """Return a line for each baseline whose test measures what the objective does."""
    lines = []
    for number, baseline in enumerate(search.baselines):
        evaluation = baseline["evaluation"]
        if metric != f"{records.VALIDATION}_{evaluation['metric']}":
            continue
        dash = DASHES[1 + number % (len(DASHES) - 1)]
        lines.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"baseline {baseline['method']}, test",
                "x": list(ends),
                "y": [evaluation["mean"]] * 2,
                "line": {"dash": dash, "color": GREY, "width": 2},
            }
        )
    return lines


def _table(
    search: SearchRecord,
    trials: Sequence[TrialRecord],
    places: Mapping[int, float],
    metric: str,
    best: Mapping[int, float],
) -> ChartTable:
    heads = ("trial", "at", "state", readable(metric), "low", "high", "best so far")
    rows = []
    for one in trials:
        ends = interval_cells(one, metric)
        value = value_of(search, one, metric)
        rows.append((one.number, places[one.number], one.state, value, *ends, best.get(one.number)))
    for baseline in search.baselines:
        evaluation = baseline["evaluation"]
        if metric == f"{records.VALIDATION}_{evaluation['metric']}":
            name = f"baseline {baseline['method']}"
            rows.append((name, None, "tested", evaluation["mean"], *evaluation["interval"], None))
    return ChartTable(heads, rows)


def _note(trials: int, has_baselines: bool) -> str:
    bars = f"With more than {LONG} trials the intervals are in the hover texts and in the table."
    lines = [
        "Bars are 95% intervals over validation episodes." if trials <= LONG else bars,
        "The best so far is of finished trials that keep the constraints.",
        *(["Baselines are tested on test episodes, trials on validation episodes."] if has_baselines else []),
    ]
    return " ".join(lines)


CHART = ChartKind("objective", "Objective over trials", draw, order=10, needs="No trial has reported the objective.")
