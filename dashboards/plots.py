"""The plots of a search that ``metaloom plot`` draws: one function a kind, each from the search's record."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metaloom.dashboards.by_sets import sets_plot
from metaloom.dashboards.canvas import canvas, legend, name_axes, panel
from metaloom.dashboards.transfer import transfer_plot
from metaloom.dashboards.trial_values import (
    first_aim,
    interval_of,
    is_log,
    is_numeric,
    places,
    running_best,
    searched_knobs,
    ticks,
    value_of,
    valued,
)
from metaloom.learners.errors import BadInput
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial_record import TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    records.FINISHED: "tab:blue",
    records.STOPPED: "tab:orange",
    records.FAILED: "tab:red",
    records.RUNNING: "tab:green",
    records.WAITING: "tab:gray",
}
KNOBS_A_FIGURE = 12
COLUMNS = 3


def history_plot(name: str, search: SearchRecord) -> "Figure":
    """Draw each trial's value with its 95% interval, by number, and the best finished one so far."""
    metric, maximize = first_aim(search)
    figure, axes = panel(8.0, 4.5)
    by_state = {state: [one for one in valued(search) if one.state == state] for state in COLOURS}
    for state, trials in by_state.items():
        if trials:
            values = [value_of(search, trial) for trial in trials]
            bars = _error_bars(search, trials, values)
            numbers = [trial.number for trial in trials]
            axes.errorbar(numbers, values, yerr=bars, fmt="o", color=COLOURS[state], label=state, capsize=2)
    finished = by_state[records.FINISHED]
    if finished:
        steps = running_best([value_of(search, trial) for trial in finished], maximize=maximize)
        numbers = [trial.number for trial in finished]
        axes.step(numbers, steps, where="post", color="black", lw=1, label="best so far")
    name_axes(axes, f"search {name}", "trial", metric)
    if axes.has_data():
        legend(axes)
    return figure


def curves_plot(name: str, search: SearchRecord) -> "Figure":
    """Draw the value of each trial's reports over its outer steps; the best one in black, with its interval."""
    from matplotlib.ticker import MaxNLocator

    metric, _ = first_aim(search)
    figure, axes = panel(8.0, 4.5)
    best, told = ranking.best(search), set[str]()
    for trial in _reported(search, "curves"):
        points = [(one.step, one.metrics[metric]) for one in trial.reports if metric in one.metrics]
        is_best = best is not None and trial.number == best.number
        label = f"trial {trial.number} (best)" if is_best else "" if trial.state in told else trial.state
        style: dict[str, Any] = {"color": "black", "lw": 2, "zorder": 3} if is_best else {"lw": 1, "alpha": 0.7}
        axes.plot(*zip(*points, strict=True), marker=".", label=label, **{"color": COLOURS[trial.state], **style})
        told |= set() if is_best else {trial.state}
        if is_best and trial.reports[-1].scored == metric:
            lows, highs = zip(*(one.interval for one in trial.reports), strict=True)
            axes.fill_between([one.step for one in trial.reports], lows, highs, color="black", alpha=0.15)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    name_axes(axes, f"search {name}", "outer steps", metric)
    legend(axes)
    return figure


def slice_plot(name: str, search: SearchRecord) -> "Figure":
    """Draw each searched knob against the value, one panel a knob."""
    metric, _ = first_aim(search)
    trials = _reported(search, "slice")
    knobs = _knobs(trials, "slice")[:KNOBS_A_FIGURE]
    columns = min(COLUMNS, len(knobs))
    rows = math.ceil(len(knobs) / columns)
    figure = canvas(4.0 * columns, 3.0 * rows)
    for number, knob in enumerate(knobs):
        axes = figure.add_subplot(rows, columns, number + 1)
        having = [trial for trial in trials if knob in trial.knobs]
        values = [trial.knobs[knob] for trial in having]
        across = values if is_numeric(values) else [str(value) for value in values]
        axes.scatter(across, [value_of(search, one) for one in having], c=[COLOURS[one.state] for one in having], s=18)
        if is_log(having, knob):
            _set_log(axes)
        name_axes(axes, "", knob, metric)
    figure.suptitle(f"search {name}", fontsize=10)
    return figure


def parallel_plot(name: str, search: SearchRecord) -> "Figure":
    """Draw each trial as a line over the axes of its searched knobs and of its value, coloured by the value."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    metric, _ = first_aim(search)
    trials = _reported(search, "parallel")
    knobs = _knobs(trials, "parallel")[:KNOBS_A_FIGURE]
    values = [value_of(search, trial) for trial in trials]
    heights_of = {knob: places(trials, knob) for knob in knobs}
    figure, axes = panel(2.0 + 2.0 * len(knobs), 5.0)
    scale, colours = Normalize(min(values), max(values)), colormaps["viridis"]
    spread = (max(values) - min(values)) or 1.0
    for trial, value in sorted(zip(trials, values, strict=True), key=lambda pair: pair[1]):
        heights = [heights_of[knob].get(trial.number, math.nan) for knob in knobs] + [(value - min(values)) / spread]
        points = [(at, height) for at, height in enumerate(heights) if math.isfinite(height)]  # the knobs that it has
        axes.plot(*zip(*points, strict=True), marker=".", color=colours(scale(value)), lw=1, alpha=0.8)
    for number, knob in enumerate(knobs):
        axes.axvline(number, color="0.8", lw=0.8, zorder=0)
        for height, label in ticks(trials, knob):
            axes.annotate(label, (number, height), xytext=(3, 0), textcoords="offset points", fontsize=7, va="center")
    axes.set_xticks(range(len(knobs) + 1), [*knobs, metric], rotation=20, ha="right", fontsize=8)
    axes.set_yticks([])
    axes.set_title(f"search {name}", fontsize=10)
    figure.colorbar(ScalarMappable(scale, colours), ax=axes, label=metric)
    return figure


def pareto_plot(name: str, search: SearchRecord) -> "Figure":
    """Draw the trials by their first two objectives, and the front of those that no other beats in every objective."""
    objectives = search.settings.objectives if search.settings else ()
    if len(objectives) < 2:
        what = f"it has one, {objectives[0].metric}" if objectives else "it has none"
        raise BadInput(f"--kind pareto needs a search of several objectives; {what} (search.objectives)")
    across, up = objectives[0].metric, objectives[1].metric
    figure, axes = panel(7.0, 5.0)
    front = {trial.number for trial in ranking.pareto_front(search)}
    found = {
        trial.number: (value_of(search, trial, across), value_of(search, trial, up))
        for trial in search.in_state(records.FINISHED)
    }
    for number, (x, y) in found.items():
        on_front = number in front
        axes.scatter(x, y, color="tab:red" if on_front else "tab:blue", s=40 if on_front else 18, zorder=2 + on_front)
        axes.annotate(str(number), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7)
    if not found:
        raise BadInput(f"search '{name}' has no finished trial to plot")
    ordered = sorted(found[number] for number in front)
    if ordered:
        axes.plot(*zip(*ordered, strict=True), color="tab:red", lw=1, label=f"Pareto front: {len(front)} trials")
        legend(axes)
    name_axes(axes, f"search {name}", across, up)
    return figure


def importance_plot(name: str, search: SearchRecord, importances: Mapping[str, float]) -> "Figure":
    """Draw how much of the value's variation each searched knob explains, as Optuna estimates it."""
    metric, _ = first_aim(search)
    figure, axes = panel(7.0, 1.2 + 0.4 * len(importances))
    ordered = sorted(importances.items(), key=lambda item: item[1])
    bars = axes.barh([knob for knob, _ in ordered], [share for _, share in ordered], color="tab:blue")
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    finished = len(search.in_state(records.FINISHED))
    name_axes(axes, f"search {name}, {finished} finished trials", f"importance for {metric}", "")
    axes.set_xlim(0.0, 1.1)
    return figure


PLOTS: dict[str, Callable[[str, SearchRecord], "Figure"]] = {
    "history": history_plot,
    "curves": curves_plot,
    "parallel": parallel_plot,
    "slice": slice_plot,
    "pareto": pareto_plot,
    "transfer": transfer_plot,
    "sets": sets_plot,
}


def _set_log(axes: "Axes") -> None:
    """Make the horizontal axis logarithmic, with at most three labels a decade."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")


def _reported(search: SearchRecord, kind: str) -> list[TrialRecord]:
    """List the trials with a value; raises BadInput if there is none."""
    found = valued(search)
    if not found:
        raise BadInput(f"--kind {kind}: no trial has reported yet")
    return found


def _knobs(trials: Sequence[TrialRecord], kind: str) -> list[str]:
    """List the searched knobs, the plain ones first; raises BadInput if nothing was searched."""
    found = searched_knobs(trials)
    if not found:
        raise BadInput(f"--kind {kind} needs a searched knob, and this search has none")
    return found


def _error_bars(search: SearchRecord, trials: Sequence[TrialRecord], values: Sequence[float]) -> list[list[float]]:
    """Return the lengths of each interval below and above its value: [2, trials]."""
    metric, _ = first_aim(search)
    lows, highs = list[float](), list[float]()
    for trial, value in zip(trials, values, strict=True):
        low, high = interval_of(trial, metric) or (value, value)
        lows.append(max(0.0, value - low))
        highs.append(max(0.0, high - value))
    return [lows, highs]
