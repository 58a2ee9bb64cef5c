"""The mean score of the episodes by outer step, with its 95% interval."""

from typing import Any

import numpy as np

from metaloom.dashboards.charts import palette
from metaloom.dashboards.charts.base import Chart, ChartKind, ChartSource, ChartTable
from metaloom.dashboards.charts.episodes.of_question import rows_of
from metaloom.workers.records import names as records
from metaloom.workers.records.results import ACCURACY, mean_interval

MOST_POINTS = 60  # of a phase: more steps are drawn in ranges of steps


def _draw(source: ChartSource) -> Chart | None:
    found = rows_of(source, ("phase", "step", "accuracy_after", "loss_after"))
    phases, steps = (found.table.column(name).to_numpy(zero_copy_only=False) for name in ("phase", "step"))
    accuracies, losses = (_numbers(found.table, name) for name in ("accuracy_after", "loss_after"))
    is_accuracy = bool(np.isfinite(accuracies).any())
    scores, name = (accuracies, ACCURACY) if is_accuracy else (losses, "loss")
    data, rows = [], list[list[Any]]()
    for place, phase in enumerate(records.PHASES):
        chosen = (phases == phase) & np.isfinite(scores)
        if not chosen.any():
            continue
        points = _points(steps[chosen].astype(int), scores[chosen], name)
        rows += [[phase, at, count, mean, low, high] for at, count, mean, low, high in points]
        at, _, mean, low, high = (list(one) for one in zip(*points, strict=True))
        error = {
            "type": "data",
            "symmetric": False,
            "array": np.subtract(high, mean),
            "arrayminus": np.subtract(mean, low),
        }
        trace = {"type": "scatter", "mode": "lines+markers", "name": phase, "x": at, "y": mean, "error_y": error}
        data.append({**trace, **palette.trace_style(place)})
    if not data:
        return None
    layout = {
        "xaxis": {"title": {"text": "outer steps"}},
        "yaxis": {"title": {"text": f"mean query {name} after adaptation"}},
    }
    table = ChartTable(["phase", "outer step", "episodes", f"mean {name}", "low", "high"], rows)
    return Chart(CHART.title, data, layout, table, f"{found.note} Bars are 95% intervals of the mean over episodes.")


def _numbers(table: Any, column: str) -> Any:
    return table.column(column).to_numpy(zero_copy_only=False).astype(float)


def _points(steps: Any, scores: Any, name: str) -> list[tuple[float, int, float, float, float]]:
    """Return the mean step, the number of episodes, and the mean with its interval, of each step or range of steps."""
    distinct = np.unique(steps)
    groups = np.array_split(distinct, min(MOST_POINTS, len(distinct)))
    found = []
    for group in groups:
        chosen = (steps >= group[0]) & (steps <= group[-1])
        of = scores[chosen]
        found.append((float(steps[chosen].mean()), len(of), *mean_interval(of.tolist(), metric=name)))
    return found


CHART = ChartKind(
    "episode_steps",
    "Mean score by outer step",
    _draw,
    live=False,
    order=20,
    needs="No episode that is asked for has a score.",
)
