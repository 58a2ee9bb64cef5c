"""What a trial's estimator says of itself: residuals of its solver, the norm of the inner gradient, its own error."""

import math

from metaloom.dashboards.charts import palette
from metaloom.dashboards.charts.base import Chart, ChartKind, ChartSource, ChartTable
from metaloom.dashboards.charts.trial_parts import asked_trial
from metaloom.dashboards.trial_curves import diagnostics

TITLE = "The estimator's own numbers"


def draw(source: ChartSource) -> Chart | None:
    """Draw each number over the outer steps, on a logarithmic axis."""
    trial = asked_trial(source)
    numbers = diagnostics(trial.reports)
    if not numbers:
        return None
    steps = [report.step for report in trial.reports]
    traces = [
        {"x": steps, "y": values, "name": name.replace("_", " "), "mode": "lines+markers", **palette.trace_style(index)}
        for index, (name, values) in enumerate(numbers.items())
    ]
    positive = all(value > 0 for values in numbers.values() for value in values if math.isfinite(value))
    axis = {"title": {"text": "mean since the report before"}, **({"type": "log"} if positive else {})}
    layout = {"xaxis": {"title": {"text": "outer step", "standoff": 4}}, "yaxis": axis}
    heads = ["outer step", *(name.replace("_", " ") for name in numbers)]
    rows = [[step, *values] for step, *values in zip(steps, *numbers.values(), strict=True)]
    estimator = trial.reports[-1].hypergradient
    return Chart(f"{TITLE}: trial {trial.number}", traces, layout, ChartTable(heads, rows), f"Estimator: {estimator}.")


CHART = ChartKind("trial-diagnostics", TITLE, draw, order=40, needs="The estimator has reported no numbers of its own.")
