"""The values and the searched knobs of a search's trials, as plots and charts place them."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial_record import TrialRecord


def first_aim(search: SearchRecord) -> tuple[str, bool]:
    """Return the metric of the first objective, and whether it is maximized."""
    if search.settings is None or not search.settings.objectives:
        return "value", True
    first = search.settings.objectives[0]
    return first.metric, first.direction == "maximize"


def value_of(search: SearchRecord, trial: TrialRecord, metric: str | None = None) -> float:
    """Return the metric, by default the first objective, by the last report; NaN where there is none."""
    value = ranking.value(search, trial, metric)
    return math.nan if value is None else value


def interval_of(trial: TrialRecord, metric: str) -> tuple[float, float] | None:
    """Return the 95% interval of the metric by the trial's last report; None where it is not of episodes."""
    return trial.last.interval if trial.last is not None and trial.last.scored == metric else None


def valued(search: SearchRecord, metric: str | None = None) -> list[TrialRecord]:
    """List the trials whose value is a finite number, by number."""
    return [one for _, one in sorted(search.trials.items()) if math.isfinite(value_of(search, one, metric))]


def running_best(values: Sequence[float], *, maximize: bool) -> list[float]:
    """Return the best value up to each place."""
    best: list[float] = []
    for value in values:
        best.append((max if maximize else min)([*best[-1:], value]))
    return best


def searched_knobs(trials: Sequence[TrialRecord]) -> list[str]:
    """List the searched knobs, the plain ones first."""
    return sorted({knob for trial in trials for knob in trial.knobs}, key=lambda knob: ("[" in knob, knob))


def knob_values(trials: Sequence[TrialRecord], knob: str) -> dict[int, Any]:
    """Return the value of a knob, by the number of each trial that has it."""
    return {trial.number: trial.knobs[knob] for trial in trials if knob in trial.knobs}


def is_numeric(values: Sequence[Any]) -> bool:
    """Return whether all values are numbers."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def is_log(trials: Sequence[TrialRecord], knob: str) -> bool:
    """Return whether a knob is searched on a logarithmic scale, by the distribution that its trials recorded."""
    given = {trial.distributions[knob] for trial in trials if knob in trial.distributions}
    return any(bool(json.loads(one)["attributes"].get("log")) for one in given)


def options_of(values: Mapping[int, Any]) -> list[str]:
    """List the options of a knob that is no number, in the order of its axis."""
    return sorted({str(value) for value in values.values()})


def scaled(trials: Sequence[TrialRecord], knob: str) -> dict[int, float]:
    """Return where each trial's value of a knob stands: its number or its logarithm, or the number of its option."""
    values = knob_values(trials, knob)
    if not is_numeric(list(values.values())):
        options = {option: float(place) for place, option in enumerate(options_of(values))}
        return {number: options[str(value)] for number, value in values.items()}
    log = is_log(trials, knob)
    return {number: math.log(value) if log else float(value) for number, value in values.items()}


def places(trials: Sequence[TrialRecord], knob: str) -> dict[int, float]:
    """Return the height of each trial on the axis of a knob, in [0, 1]."""
    heights = scaled(trials, knob)
    low, high = min(heights.values()), max(heights.values())
    return {number: (value - low) / (high - low) if high > low else 0.5 for number, value in heights.items()}


def ticks(trials: Sequence[TrialRecord], knob: str) -> list[tuple[float, str]]:
    """Return heights and labels on the axis of a knob: every option, or the ends of its values."""
    heights, values = places(trials, knob), knob_values(trials, knob)
    texts = {number: f"{one:.3g}" if isinstance(one, float) else str(one) for number, one in values.items()}
    found = sorted({(heights[number], text) for number, text in texts.items()})
    return found if not is_numeric(list(values.values())) or len(found) <= 2 else [found[0], found[-1]]
