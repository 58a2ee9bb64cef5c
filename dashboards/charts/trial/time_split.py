"""Where a trial's time goes: a bar for each report, divided by what was done."""

from metaloom.dashboards.charts import palette
from metaloom.dashboards.charts.base import Chart, ChartKind, ChartSource, ChartTable
from metaloom.dashboards.charts.trial_parts import asked_trial
from metaloom.dashboards.trial_curves import time_split
from metaloom.workers.records import names as records

TITLE = "Time by what was done"
PATTERNS = ("", "/", "x", "-", "\\", ".")  # colour is never alone


def draw(source: ChartSource) -> Chart | None:
    """Draw the seconds since the report before."""
    trial = asked_trial(source)
    if not trial.reports:
        return None
    split = time_split(trial.reports)
    total = sum(map(sum, split.values()))
    steps = [str(report.step) for report in trial.reports]
    traces = [
        {
            "type": "bar",
            "x": steps,
            "y": seconds,
            "name": f"{name} {sum(seconds) / total:.1%}" if total else name,
            "marker": {"color": palette.colour(index), "pattern": {"shape": PATTERNS[index], "solidity": 0.15}},
        }
        for index, (name, seconds) in enumerate(split.items())
        if any(seconds)
    ]
    layout = {
        "barmode": "stack",
        "xaxis": {"title": {"text": "outer step of the report", "standoff": 4}, "type": "category"},
        "yaxis": {"title": {"text": "seconds"}},
        "legend": {"orientation": "h", "y": -0.3, "traceorder": "normal"},
    }
    heads = ["outer step", *(f"{name}, s" for name in split)]
    rows = [[report.step, *seconds] for report, *seconds in zip(trial.reports, *split.values(), strict=True)]
    rows.append(["all", *map(sum, split.values())])
    note = (
        "A bar is the time since the report before. Inner loops are those of training with the hypergradient through "
        "them: both are one computation, whose parts have no times of their own."
    )
    if records.INNER_SECONDS not in trial.reports[-1].metrics:
        note = "This trial was run by an earlier version, which recorded the time of its records alone."
    return Chart(f"{TITLE}: trial {trial.number}", traces, layout, ChartTable(heads, rows), note)


CHART = ChartKind("trial-time", TITLE, draw, order=50, needs="The trial has not reported.")
