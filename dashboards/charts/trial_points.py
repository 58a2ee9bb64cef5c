"""What the charts of a search share: the chosen option, the words for a trial, axes of knobs."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from metaloom.dashboards.charts.base import ChartChoice, ChartSource
from metaloom.dashboards.charts.palette import STATE_COLOURS, STATE_MARKERS
from metaloom.dashboards.episode_scan import QueryError
from metaloom.dashboards.text import knobs_text, scored
from metaloom.dashboards.trial_values import interval_of, is_log, is_numeric, knob_values, options_of, value_of
from metaloom.learners.errors import unknown
from metaloom.workers.records import names as records
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial_record import TrialRecord

LONG_NAME = 20  # characters of a line of a knob's name
PARTS_OF_A_NAME = re.compile(r"[^.\]]+[.\]]*|[.\]]+")
LONG_KNOBS = 160  # characters of the knobs in a hover text
MOST_POINTS = 20_000  # of one chart: more make the browser slow
FAR = 3.0  # interquartile ranges beyond the quartiles: a value of a trial that has diverged
MUCH_WIDER = 20.0  # than the range of the usual values: these could not be told apart
ROOM = 0.06  # of the range, beyond its ends
FEW_TICKS = 12  # whole numbers that each have their tick


def choice(source: ChartSource, name: str, label: str, options: Sequence[tuple[str, str]], default: str) -> ChartChoice:
    """Return a control with what the query string has chosen; raises QueryError if that is no option."""
    given = source.asked.get(name) or default
    if given not in dict(options):
        raise QueryError(unknown(name, given, dict(options)))
    return ChartChoice(name, label, options, given)


def objective_choice(source: ChartSource, search: SearchRecord) -> ChartChoice:
    """Return the control of the objective, the first by default."""
    aims = search.settings.objectives if search.settings else ()
    options = [(aim.metric, readable(aim.metric)) for aim in aims]
    return choice(source, "objective", "Objective", options, aims[0].metric if aims else "")


def shown(*choices: ChartChoice) -> tuple[ChartChoice, ...]:
    """Return the controls that have something to choose."""
    return tuple(one for one in choices if len(one.options) > 1)


def is_maximized(search: SearchRecord, metric: str) -> bool:
    """Return whether the objective of this metric is maximized."""
    aims = search.settings.objectives if search.settings else ()
    return any(aim.metric == metric and aim.direction == "maximize" for aim in aims)


def readable(metric: str) -> str:
    """Return a metric's name for people."""
    return metric.replace("_", " ")


def wrapped(name: str) -> str:
    """Break the long name of a knob after dots and brackets, for the axis of a small panel."""
    lines = [""]
    for part in PARTS_OF_A_NAME.findall(name):
        if lines[-1] and len(lines[-1]) + len(part) > LONG_NAME:
            lines.append("")
        lines[-1] += part
    return "<br>".join(lines)


def trial_text(search: SearchRecord, trial: TrialRecord, metric: str) -> str:
    """Return the hover text of a trial: number, state, value with its interval, why it was stopped, knobs."""
    value = value_of(search, trial, metric)
    text = scored(value if math.isfinite(value) else None, interval_of(trial, metric))
    lines = [f"trial {trial.number}, {trial.state}: {text}", *([trial.reason] if trial.reason else [])]
    knobs = knobs_text(trial.knobs)
    return "<br>".join([*lines, knobs if len(knobs) <= LONG_KNOBS else f"{knobs[:LONG_KNOBS]} ..."])


def state_marker(state: str, size: int = 7) -> dict[str, Any]:
    """Return the marker of trials in a state: colour and shape differ."""
    return {"color": STATE_COLOURS[state], "symbol": STATE_MARKERS[state], "size": size}


def by_state(trials: Iterable[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """Return trials by their states, in the order of the palette; states without trials are left out."""
    trials = list(trials)
    groups = {state: [one for one in trials if one.state == state] for state in STATE_COLOURS}
    return {state: group for state, group in groups.items() if group}


def knob_axis(trials: Sequence[TrialRecord], knob: str) -> dict[str, Any]:
    """Return the axis of a knob: logarithmic where it is searched so, with named options where it is no number."""
    values = knob_values(trials, knob)
    axis: dict[str, Any] = {"title": {"text": wrapped(knob), "font": {"size": 11}, "standoff": 6}}
    if not is_numeric(list(values.values())):
        return {**axis, "type": "category", "categoryorder": "array", "categoryarray": options_of(values)}
    return {**axis, "type": "log" if is_log(trials, knob) else "linear"}


def on_axis(trials: Sequence[TrialRecord], knob: str) -> list[Any]:
    """Return where trials, which all have the knob, stand on its axis: numbers, or the names of options."""
    values = [trial.knobs[knob] for trial in trials]
    return values if is_numeric(values) else [str(value) for value in values]


def error_bars(trials: Sequence[TrialRecord], values: Sequence[float], metric: str) -> dict[str, Any]:
    """Return Plotly's error bars of the 95% intervals; no bar where there is no interval."""
    ends = [interval_of(trial, metric) or (value, value) for trial, value in zip(trials, values, strict=True)]
    above = [max(0.0, high - value) for (_, high), value in zip(ends, values, strict=True)]
    below = [max(0.0, value - low) for (low, _), value in zip(ends, values, strict=True)]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1, "width": 2}


def interval_cells(trial: TrialRecord, metric: str) -> tuple[float | None, float | None]:
    """Return the ends of a trial's interval as cells of a table."""
    return interval_of(trial, metric) or (None, None)


def framed(axis: Mapping[str, Any], values: Iterable[float]) -> tuple[dict[str, Any], str]:
    """Return a linear axis that shows the usual values where a few are so far off that the others would be one line.

    With it comes what the reader has to know; it is empty where the axis has all values.
    """
    known = np.asarray(list(values), dtype=float)
    known = known[np.isfinite(known)]
    if known.size == 0:
        return dict(axis), ""
    low, high = np.quantile(known, (0.25, 0.75))
    usual = known[(known >= low - FAR * (high - low)) & (known <= high + FAR * (high - low))]
    span = float(np.ptp(usual))
    if span == 0 or np.ptp(known) <= MUCH_WIDER * span:
        return dict(axis), ""
    ends = [float(usual.min()) - ROOM * span, float(usual.max()) + ROOM * span]
    left = known.size - usual.size
    told = f"{left} {'value is' if left == 1 else 'values are'} far beyond the axis; a double click shows all."
    return {**axis, "range": ends}, told


def whole_numbers(axis: Mapping[str, Any], numbers: Iterable[float]) -> dict[str, Any]:
    """Return an axis of whole numbers, with a tick for each where they are few."""
    given = list(numbers)
    return {**axis, "dtick": 1} if given and max(given) - min(given) <= FEW_TICKS else dict(axis)


def rungs_of(source: ChartSource, search: SearchRecord) -> Sequence[int]:
    """Return the outer steps at which the scheduler compares trials; none where nothing is lent."""
    return source.analysis.rungs(search) if source.analysis else ()


def rung_of(trial: TrialRecord, rungs: Sequence[int]) -> int | None:
    """Return the last rung that a stopped trial has reached; None where it reached none, or was not stopped."""
    reached = [rung for rung in rungs if rung <= trial.step]
    return reached[-1] if reached and trial.state == records.STOPPED else None
