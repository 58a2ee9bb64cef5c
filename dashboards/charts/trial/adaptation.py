"""How a trial adapts: the query loss and accuracy by inner step, over the episodes of a phase at an outer step."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from metaloom.dashboards.charts import palette
from metaloom.dashboards.charts.base import Chart, ChartChoice, ChartKind, ChartSource, ChartTable
from metaloom.dashboards.charts.trial_parts import asked_trial, band
from metaloom.dashboards.queries import trial_folder
from metaloom.dashboards.trial_curves import kind_of_tasks, unit_of
from metaloom.dashboards.trial_episodes import (
    EPISODES_OF_A_CURVE,
    AdaptationCurve,
    adaptation_curves,
    measured_steps,
)
from metaloom.workers.records.trial_record import TrialRecord

TITLES = {"loss": "query loss", "accuracy": "query accuracy", "rmse": "root mean squared error", "return": "return"}


def draw(source: ChartSource) -> Chart | None:
    """Draw the mean with its interval, and the quartiles over the episodes; one panel for each metric."""
    trial = asked_trial(source)
    directory = trial_folder(source.store.path, source.name, trial.number)
    steps = measured_steps(directory, trial)
    if not steps:
        return None
    phase = source.asked.get("phase", "")
    phase = phase if phase in steps else next(iter(steps))
    asked = source.asked.get("step", "")
    step = int(asked) if asked in map(str, steps[phase]) else steps[phase][-1]
    curves, damaged = adaptation_curves(directory, trial, phase, step)
    shown = _in_words(curves, trial, kind_of_tasks(directory))
    choices = (
        ChartChoice("phase", "Phase", [(one, one) for one in steps], phase),
        ChartChoice("step", "Outer step", [(str(one), str(one)) for one in steps[phase]], str(step)),
    )
    counted = f"{curves[0].episodes} {phase} episodes at outer step {step}"
    note = (
        f"Mean of {counted} with its 95% interval; thin lines are the quartiles over the episodes. "
        "Training measures the query set after the last inner step alone."
    )
    if curves[0].episodes == EPISODES_OF_A_CURVE:
        note += f" The newest {EPISODES_OF_A_CURVE} episodes are shown."
    note += "".join(f" {part}." for part in damaged)
    return Chart(f"Adaptation of trial {trial.number}", _traces(shown), _layout(shown), _table(shown), note, choices)


def _in_words(curves: Sequence[AdaptationCurve], trial: TrialRecord, kind: str) -> list[AdaptationCurve]:
    """Return the curves as the kind of task is read: the return in control, and errors in the target's units."""
    if kind == "control":
        return [_changed(curve, "return", lambda value: -value) for curve in curves]
    unit = unit_of(trial.last) if trial.last else None
    if unit is None:
        return list(curves)
    # of the mean, as everywhere: the mean of roots would be another number
    errors = [
        _changed(one, "rmse", lambda value: unit * max(value, 0.0) ** 0.5) for one in curves if one.metric == "loss"
    ]
    return [*curves, *errors]


def _changed(curve: AdaptationCurve, metric: str, change: Any) -> AdaptationCurve:
    bounds = [list(map(change, one)) for one in (curve.lows, curve.highs, curve.quarters, curve.three_quarters)]
    low, high, first, third = bounds
    if metric == "return":  # the smaller loss is the larger return
        low, high, first, third = high, low, third, first
    means = list(map(change, curve.means))
    return replace(curve, metric=metric, means=means, lows=low, highs=high, quarters=first, three_quarters=third)


def _traces(curves: Sequence[AdaptationCurve]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for index, curve in enumerate(curves):
        places = list(range(len(curve.means)))
        axes = {"xaxis": _axis("x", index), "yaxis": _axis("y", index)}
        style = palette.trace_style(index)
        colour = style["line"]["color"]
        found.append(band(places, curve.lows, curve.highs, colour, **axes))
        thin = {"mode": "lines", "line": {"color": colour, "width": 1, "dash": "dot"}, "showlegend": False, **axes}
        for name, values in (("first quartile", curve.quarters), ("third quartile", curve.three_quarters)):
            found.append({"x": places, "y": values, "name": name, **thin})
        found.append(
            {"x": places, "y": curve.means, "name": TITLES[curve.metric], "mode": "lines+markers", **axes, **style}
        )
    return found


def _axis(name: str, index: int) -> str:
    return name if index == 0 else f"{name}{index + 1}"


def _layout(curves: Sequence[AdaptationCurve]) -> dict[str, Any]:
    layout: dict[str, Any] = {"showlegend": False}
    share = 1.0 / len(curves)
    for index, curve in enumerate(curves):
        place, gap = index * share, 0.12 if index < len(curves) - 1 else 0.0
        number = "" if index == 0 else str(index + 1)
        across = {"title": {"text": curve.of}, "domain": [place, place + share - gap], "anchor": f"y{number}"}
        layout[f"xaxis{number}"] = {**across, "dtick": max(1, len(curve.means) // 8)}
        layout[f"yaxis{number}"] = {"title": {"text": TITLES[curve.metric]}, "anchor": f"x{number}"}
    return layout


def _table(curves: Sequence[AdaptationCurve]) -> ChartTable:
    heads = [curves[0].of]
    for curve in curves:
        heads += [TITLES[curve.metric], "95% low", "95% high", "first quartile", "third quartile"]
    columns = [
        column for one in curves for column in (one.means, one.lows, one.highs, one.quarters, one.three_quarters)
    ]
    return ChartTable(heads, [[place, *values] for place, values in enumerate(zip(*columns, strict=True))])


CHART = ChartKind(
    "trial-adaptation", "Adaptation", draw, order=20, needs="No episode of a validation or a test is recorded."
)
