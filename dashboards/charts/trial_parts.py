"""What the charts of a trial share: the trial that is asked for, and bands around curves."""

import math
from collections.abc import Sequence
from typing import Any

from metaloom.dashboards.charts import palette
from metaloom.dashboards.charts.base import ChartSource
from metaloom.dashboards.episode_scan import QueryError
from metaloom.workers.records.trial_record import TrialRecord


def asked_trial(source: ChartSource) -> TrialRecord:
    """Return the trial that a chart is asked of; raises QueryError if there is none."""
    trials = source.store.record(source.name).trials
    if source.trial not in trials:
        spans = f"{min(trials)} to {max(trials)}" if trials else "none yet"
        which = "no trial was named" if source.trial is None else f"search '{source.name}' has no trial {source.trial}"
        raise QueryError(f"{which} (it has {spans})")
    return trials[source.trial]


def band(
    places: Sequence[float], lows: Sequence[float], highs: Sequence[float], colour: str, **more: Any
) -> dict[str, Any]:
    """Return the area between two curves, without the places where they are not finite."""
    kept = [one for one in zip(places, lows, highs, strict=True) if all(map(math.isfinite, one))]
    across = [*(place for place, _, _ in kept), *(place for place, _, _ in reversed(kept))]
    up = [*(high for _, _, high in kept), *(low for _, low, _ in reversed(kept))]
    shape = {"fill": "toself", "fillcolor": palette.translucent(colour, 0.22), "line": {"width": 0}, "mode": "lines"}
    return {"x": across, "y": up, **shape, "hoverinfo": "skip", "showlegend": False, **more}
