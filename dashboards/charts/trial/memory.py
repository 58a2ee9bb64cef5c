"""The most memory that a trial has held: its process, and its tensors on a GPU."""

from metaloom.dashboards.charts import palette
from metaloom.dashboards.charts.base import Chart, ChartKind, ChartSource, ChartTable
from metaloom.dashboards.charts.trial_parts import asked_trial
from metaloom.workers.records import names as records

TITLE = "Peak memory"
MIB = 2**20
NAMES = {records.PEAK_BYTES: "process", records.PEAK_GPU_BYTES: "tensors on the GPU"}


def draw(source: ChartSource) -> Chart | None:
    """Draw the peaks up to each report; None for a trial of an earlier version, which has not recorded them."""
    trial = asked_trial(source)
    reports = [one for one in trial.reports if records.PEAK_BYTES in one.metrics]
    if not reports:
        return None
    steps = [report.step for report in reports]
    held = {
        name: [report.metrics.get(metric, 0.0) / MIB for report in reports]
        for metric, name in NAMES.items()
        if metric in reports[-1].metrics
    }
    traces = [
        {"x": steps, "y": values, "name": name, "mode": "lines+markers", **palette.trace_style(index)}
        for index, (name, values) in enumerate(held.items())
    ]
    layout = {
        "xaxis": {"title": {"text": "outer step", "standoff": 4}},
        "yaxis": {"title": {"text": "MiB"}, "rangemode": "tozero"},
        "showlegend": True,
    }
    heads = ["outer step", *(f"{name}, MiB" for name in held)]
    rows = [[step, *values] for step, *values in zip(steps, *held.values(), strict=True)]
    note = "The most that was resident at once since the process began with the trial; a resume begins again."
    if len(held) == 1:
        note += f" It ran on {reports[-1].device}, which has no memory of its own."
    return Chart(f"{TITLE} of trial {trial.number}", traces, layout, ChartTable(heads, rows), note)


CHART = ChartKind(
    "trial-memory",
    TITLE,
    draw,
    order=60,
    needs="No report has a memory: the trial has not reported, or it is of an earlier version.",
)
