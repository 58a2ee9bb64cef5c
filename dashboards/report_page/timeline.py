"""When each trial ran and how that ended, as a plot for paper."""

from pathlib import Path
from typing import TYPE_CHECKING

from metaloom.dashboards.canvas import legend, name_axes, panel
from metaloom.dashboards.plots import COLOURS
from metaloom.dashboards.timeline import INTERRUPTED, LOST, TrialRun, read_timeline
from metaloom.workers.records import names as records
from metaloom.workers.records.search import SearchRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUNNING = records.RUNNING
HATCHES = {records.STOPPED: "//", records.FAILED: "xx", INTERRUPTED: "--", LOST: "++"}  # beside the colour
MOST_NUMBERED = 60  # runs; more have no room for the trial's number


def timeline_plot(name: str, folder: Path, search: SearchRecord) -> "Figure | None":
    """Draw a bar for each run of a trial, over the seconds of the search; None before the first."""
    timeline = read_timeline(folder, damaged=bool(search.warnings))
    if not timeline.runs:
        return None
    lanes = 1 + max(run.slot for run in timeline.runs)
    figure, axes = panel(8.0, min(8.0, 1.6 + 0.45 * lanes))
    endings = {run.ending or RUNNING for run in timeline.runs}
    for ending in [one for one in (*COLOURS, INTERRUPTED, LOST) if one in endings] + sorted(
        endings - {*COLOURS, INTERRUPTED, LOST}
    ):
        runs = [run for run in timeline.runs if (run.ending or RUNNING) == ending]
        axes.barh(
            [run.slot + 1 for run in runs],
            [_end(run, timeline.spent) - run.spent for run in runs],
            left=[run.spent for run in runs],
            color=COLOURS.get(ending, "tab:purple"),
            hatch=HATCHES.get(ending, ""),
            edgecolor="white",
            linewidth=0.5,
            label=ending,
        )
    for run in timeline.runs if len(timeline.runs) <= MOST_NUMBERED else ():
        middle = (run.spent + _end(run, timeline.spent)) / 2
        axes.text(middle, run.slot + 1, str(run.trial), ha="center", va="center", fontsize=7, color="white")
    axes.set_yticks(range(1, lanes + 1))
    axes.invert_yaxis()
    name_axes(axes, f"search {name}", "seconds of the search", "trials at once")
    legend(axes)
    return figure


def _end(run: TrialRun, spent: float) -> float:
    return spent if run.spent_at_end is None else run.spent_at_end
