"""Draws simulated searches: the best so far and the regret, by trials and by time, over seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metaloom.dashboards.canvas import canvas, image, legend, name_axes
from metaloom.dashboards.simulated_rows import RegretRow, SimulationRow
from metaloom.learners.errors import BadInput
from metaloom.workers import durable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMS = ("png", "svg")
MARGIN = 0.05  # above and below the lines, as a share of their height
LEADING = ("1", "2", "5")  # ticks are 1, 2, 5, 10, 20, 50, ... trials


def form_of(path: Path) -> str:
    """Return the form that a file's ending names; raises BadInput for another one than .png and .svg."""
    form = path.suffix.removeprefix(".").lower()
    if form not in FORMS:
        raise BadInput(f"--plot: {path} has the ending '{path.suffix}'; allowed are .png and .svg")
    return form


def draw_regret(found: SimulationRow, path: Path, form: str) -> None:
    """Draw simulated searches to a file of a form (``form_of``); raises StorageError if it cannot be written."""
    durable.write_bytes(path, image(regret_figure(found), form))


def regret_figure(found: SimulationRow) -> "Figure":
    """Return three panels, each with a line a strategy and its 95% interval over the seeds."""
    figure = canvas(15.0, 4.5)
    time = "simulated seconds" if found.unit == "s" else "steps"
    panels = (
        ("best so far", "best", "trials", "by_trials"),
        ("regret", "regret", "trials", "by_trials"),
        ("regret", "regret", time, "by_time"),
    )
    for place, (title, field, across, points) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        for colour, one in enumerate(found.strategies):
            _draw(axes, getattr(one, points), field, one.name, f"C{colour % 10}")
        if field == "best":
            axes.axhline(found.best, color="black", lw=0.8, ls=":", label="best of all")
        _fit_height(axes)
        if across == "trials":
            _count_trials(axes, [point.at for one in found.strategies for point in one.by_trials])
        up = found.measure if field == "best" else f"{field} of {found.measure}"
        name_axes(axes, f"{found.table}: {title}", across, up)
        if place == len(panels) - 1:
            legend(axes)
    return figure


def _fit_height(axes: "Axes") -> None:
    """Fit the axes to the lines: the band of few seeds is wide, and may reach values that no loss has."""
    values = [float(one) for line in axes.lines for one in np.asarray(line.get_ydata())]
    if values:
        low, high = min(values), max(values)
        margin = MARGIN * ((high - low) or abs(high) or 1.0)
        axes.set_ylim(low - margin, high + margin)


def _count_trials(axes: "Axes", numbers: Sequence[float]) -> None:
    """Scale the numbers of trials by their logarithms, with whole numbers at the ticks."""
    axes.set_xscale("log")
    ticks = [one for one in sorted(set(numbers)) if f"{one:.0f}".rstrip("0") in LEADING]
    axes.set_xticks(ticks, [f"{one:.0f}" for one in ticks])
    axes.set_xticks([], minor=True)


def _draw(axes: "Axes", points: Sequence[RegretRow], field: str, label: str, colour: str) -> None:
    """Draw a line, and its interval as a band where there are several seeds."""
    known = [one for one in points if getattr(one, field) is not None]
    across, values = [one.at for one in known], [getattr(one, field) for one in known]
    axes.step(across, values, where="post", color=colour, label=label, lw=1.5)
    bands = [getattr(one, f"{field}_interval") for one in known]
    if bands and all(bands):
        lows, highs = zip(*bands, strict=True)
        axes.fill_between(across, lows, highs, step="post", color=colour, alpha=0.15)
