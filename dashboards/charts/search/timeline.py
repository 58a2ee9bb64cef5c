"""The trials over time, a bar for each of their runs: by slot or by worker, with how each run ended."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from metaloom.dashboards.charts.base import Chart, ChartChoice, ChartKind, ChartSource, ChartTable
from metaloom.dashboards.charts.palette import GREEN, GREY, PINK, SKY, STATE_COLOURS, STATE_MARKERS, translucent
from metaloom.dashboards.charts.trial_points import choice, shown
from metaloom.dashboards.timeline import EXCHANGED, INTERRUPTED, LOST, DriverSession, Timeline, TrialRun, timeline_of
from metaloom.workers.records import names as records

RUNNING = "running"
PATTERNS = {  # beside the colour: of the bars
    records.FINISHED: "",
    records.STOPPED: "/",
    records.FAILED: "x",
    RUNNING: ".",
    INTERRUPTED: "-",
    LOST: "+",
    EXCHANGED: "|",
}
COLOURS = {**STATE_COLOURS, INTERRUPTED: GREY, LOST: PINK, EXCHANGED: SKY}
MARKERS = {**STATE_MARKERS, INTERRUPTED: "line-ew-open", LOST: "cross", EXCHANGED: "star"}
MOST_RUNS = 3000
MANY = 200  # runs: the marks of more are smaller
TOLD_SESSIONS = 5
SLOT, WORKER, TRIAL = "slot", "worker", "trial"
CLOCK, SPENT = "clock", "spent"


def draw(source: ChartSource) -> Chart | None:
    """Draw the runs of all trials and the sessions of the driver."""
    search, timeline = source.store.record(source.name), timeline_of(source.store, source.name)
    if not timeline.runs:
        return None
    rows = choice(source, "rows", "Rows", [(SLOT, "slots"), (WORKER, "workers"), (TRIAL, "trials")], SLOT)
    over = choice(source, "over", "Time", [(CLOCK, "of day"), (SPENT, "spent on the search")], CLOCK)
    now = time.time() if search.state == records.RUNNING else timeline.last_sign
    runs = timeline.runs[-MOST_RUNS:]
    axis = TimeAxis(over, timeline, now)
    data = [*_bars(runs, rows.chosen, axis), *_marks(runs, rows.chosen, axis)]
    across = {"type": "date"} if over.chosen == CLOCK else {"title": {"text": "seconds"}}
    layout = {
        "barmode": "overlay",
        "bargap": 0.2,
        "xaxis": across,
        "yaxis": {"type": "category", "categoryorder": "array", "categoryarray": _lanes(runs, rows.chosen)},
        "shapes": [axis.shade(session) for session in timeline.sessions],
    }
    note = _note(timeline, len(runs))
    table = ChartTable(
        ("trial", "attempt", "slot", "worker", "began", "ended", "seconds", "reports", "ending", "reason"),
        [_row(run, now) for run in runs],
    )
    return Chart("Timeline of the trials", data, layout, table, note, shown(rows, over))


class TimeAxis:
    """Places moments on the chosen axis: times of day, or seconds spent on the search."""

    def __init__(self, over: ChartChoice, timeline: Timeline, now: float) -> None:
        self.by_clock = over.chosen == CLOCK
        self._now = now
        self._spent_now = timeline.spent + max(0.0, now - timeline.last_sign)

    def begin(self, run: TrialRun | DriverSession) -> Any:
        """Return where a run begins."""
        return _date(run.began) if self.by_clock else run.spent

    def end(self, run: TrialRun | DriverSession) -> Any:
        """Return where a run ends; one that goes on ends now."""
        if self.by_clock:
            return _date(self._now if run.ended is None else run.ended)
        return self._spent_now if run.spent_at_end is None else run.spent_at_end

    def length(self, run: TrialRun) -> float:
        """Return the length of a run's bar in the units of the axis: milliseconds of dates, or seconds."""
        if self.by_clock:
            return 1000.0 * ((self._now if run.ended is None else run.ended) - run.began)
        return float(self.end(run)) - run.spent

    def shade(self, session: DriverSession) -> dict[str, Any]:
        """Return the shaded area of a session."""
        return {
            "type": "rect",
            "xref": "x",
            "yref": "paper",
            "x0": self.begin(session),
            "x1": self.end(session),
            "y0": 0,
            "y1": 1,
            "layer": "below",
            "line": {"width": 1, "color": translucent(GREEN, 0.4), "dash": "dot"},
            "fillcolor": translucent(GREEN, 0.08),
        }


def _date(moment: float) -> str:
    """Return a moment as Plotly reads dates: the time of this machine's zone."""
    return datetime.fromtimestamp(moment).isoformat(sep=" ", timespec="milliseconds")


def _lane(run: TrialRun, rows: str) -> str:
    if rows == WORKER:
        return run.worker or "no report yet"
    return f"slot {run.slot + 1}" if rows == SLOT else f"trial {run.trial}"


def _lanes(runs: Sequence[TrialRun], rows: str) -> list[str]:
    """Return the rows, the first one on top: Plotly draws categories upwards."""
    order: Mapping[str, Any] = {
        SLOT: lambda run: run.slot,
        WORKER: lambda run: run.worker,
        TRIAL: lambda run: run.trial,
    }
    return list(dict.fromkeys(_lane(run, rows) for run in sorted(runs, key=order[rows])))[::-1]


def _text(run: TrialRun) -> str:
    attempt = f", resumed: attempt {run.attempt}" if run.attempt > 1 else ""
    ending = f"{run.ending or RUNNING}{': ' if run.reason else ''}{run.reason}"
    return f"trial {run.trial}{attempt}<br>{ending}<br>{run.reports} reports, worker {run.worker or 'unknown'}"


def _bars(runs: Sequence[TrialRun], rows: str, axis: TimeAxis) -> list[dict[str, Any]]:
    traces = []
    for ending, pattern in PATTERNS.items():
        group = [run for run in runs if (run.ending or RUNNING) == ending]
        if group:
            marker = {"color": COLOURS[ending], "pattern": {"shape": pattern, "size": 5}, "line": {"width": 0.5}}
            trace = {
                "type": "bar",
                "orientation": "h",
                "name": ending,
                "base": [axis.begin(run) for run in group],
                "x": [axis.length(run) for run in group],
                "y": [_lane(run, rows) for run in group],
                "text": [_text(run) for run in group],
                "textposition": "none",
                "hoverinfo": "text",
                "marker": marker,
            }
            traces.append(trace)
    return traces


def _marks(runs: Sequence[TrialRun], rows: str, axis: TimeAxis) -> list[dict[str, Any]]:
    """Return the marks of resumes at the beginnings, and of stops, failures and interruptions at the ends."""
    resumed = [run for run in runs if run.attempt > 1]
    marks = [("resumed", "triangle-right", GREEN, resumed, [axis.begin(run) for run in resumed])]
    for ending in (records.STOPPED, records.FAILED, INTERRUPTED, LOST):
        group = [run for run in runs if run.ending == ending]
        marks.append((f"end: {ending}", MARKERS[ending], COLOURS[ending], group, [axis.end(run) for run in group]))
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": across,
            "y": [_lane(run, rows) for run in group],
            "text": [_text(run) for run in group],
            "hoverinfo": "text",
            "marker": {"symbol": symbol, "color": colour, "size": 8 if len(runs) <= MANY else 5, "line": {"width": 1}},
        }
        for name, symbol, colour, group, across in marks
        if group
    ]


def _row(run: TrialRun, now: float) -> tuple[Any, ...]:
    ended = now if run.ended is None else run.ended
    times = (_date(run.began), "" if run.ended is None else _date(run.ended), ended - run.began)
    ending = run.ending or RUNNING
    return (run.trial, run.attempt, run.slot + 1, run.worker, *times, run.reports, ending, run.reason)


def _note(timeline: Timeline, drawn: int) -> str:
    sessions = timeline.sessions
    told = [
        f"{_date(one.began)} to {_date(one.ended) if one.ended else 'now'} ({one.ending or RUNNING})"
        for one in sessions
    ]
    left = f" and {len(told) - TOLD_SESSIONS} earlier ones" if len(told) > TOLD_SESSIONS else ""
    lines = [f"Shaded: the driver's sessions: {'; '.join(told[-TOLD_SESSIONS:])}{left}."]
    if drawn < len(timeline.runs):
        lines.append(f"The last {drawn:,} of {len(timeline.runs):,} runs are drawn.")
    lines.append("A slot is the lowest number that no other trial held when the run began.")
    return " ".join(lines)


CHART = ChartKind("timeline", "Timeline of the trials", draw, order=30, needs="No trial has begun.")
