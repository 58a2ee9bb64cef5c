"""How the episodes' scores are spread: the accuracy after adaptation, or the loss where there is none."""

from typing import Any

import numpy as np

from metaloom.dashboards.charts import palette
from metaloom.dashboards.charts.base import Chart, ChartKind, ChartSource, ChartTable
from metaloom.dashboards.charts.episodes.of_question import rows_of
from metaloom.workers.records import names as records

BINS = 40


def _draw(source: ChartSource) -> Chart | None:
    found = rows_of(source, ("phase", "accuracy_after", "loss_after"))
    phases = found.table.column("phase").to_numpy(zero_copy_only=False)
    accuracies = _numbers(found.table, "accuracy_after")
    is_accuracy = bool(np.isfinite(accuracies).any())
    scores = accuracies if is_accuracy else _numbers(found.table, "loss_after")
    known = np.isfinite(scores)
    if not known.any():
        return None
    ends = (0.0, 1.0) if is_accuracy else (float(scores[known].min()), float(np.quantile(scores[known], 0.995)))
    edges = np.linspace(ends[0], ends[1] if ends[1] > ends[0] else ends[0] + 1.0, BINS + 1)
    middles, name = (edges[1:] + edges[:-1]) / 2, "accuracy" if is_accuracy else "loss"
    data, counts = [], {}
    for place, phase in enumerate(one for one in records.PHASES if (known & (phases == one)).any()):
        clipped = np.clip(scores[known & (phases == phase)], edges[0], edges[-1])
        counts[phase] = np.histogram(clipped, edges)[0].tolist()
        bar = {"type": "bar", "name": phase, "x": middles, "y": counts[phase], "opacity": 0.8}
        data.append(
            {**bar, "marker": {"color": palette.colour(place), "pattern": {"shape": ("", "/", ".")[place % 3]}}}
        )
    rows = [
        [f"{low:.3g} to {high:.3g}", *(counts[phase][place] for phase in counts)]
        for place, (low, high) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    ]
    layout = {
        "barmode": "overlay",
        "bargap": 0.02,
        "xaxis": {"title": {"text": f"query {name} after adaptation"}},
        "yaxis": {"title": {"text": "episodes"}},
    }
    cut = "" if is_accuracy else " Larger losses than 99.5% of them are in the last bar."
    return Chart(CHART.title, data, layout, ChartTable([name, *counts], rows), found.note + cut)


def _numbers(table: Any, column: str) -> Any:
    return table.column(column).to_numpy(zero_copy_only=False).astype(float)


CHART = ChartKind(
    "episode_scores",
    "Scores of the episodes",
    _draw,
    live=False,
    order=10,
    needs="No episode that is asked for has a score.",
)
