"""The norm of a trial's hypergradient at each outer step, before clipping, and the norm that clips it."""

import statistics
from collections.abc import Sequence
from typing import Any

from metaloom.dashboards.charts import palette
from metaloom.dashboards.charts.base import Chart, ChartKind, ChartSource, ChartTable
from metaloom.dashboards.charts.trial_parts import asked_trial, band
from metaloom.dashboards.queries import trial_folder
from metaloom.dashboards.trial_episodes import NormOfStep, hypergradient_norms

MOST_POINTS = 1000
TITLE = "Norm of the hypergradient"


def draw(source: ChartSource) -> Chart | None:
    """Draw the norms on a logarithmic axis; many are put together in bins of equal width."""
    trial = asked_trial(source)
    if trial.config is None:
        return None
    norms = hypergradient_norms(trial_folder(source.store.path, source.name, trial.number), trial)
    if not any(one.norm > 0 for one in norms):
        return None
    bins = binned(norms, MOST_POINTS)
    width = max(len(one) for one in bins)
    places = [one[0].step for one in bins]
    medians, lows, highs = zip(*(_spread(one) for one in bins), strict=True)
    traces: list[dict[str, Any]] = []
    if width > 1:
        traces.append(band(places, lows, highs, palette.BLUE, name="least to greatest", showlegend=True))
    style = {"line": {"color": palette.BLUE, "width": 1.5}}
    traces.append({"x": places, "y": medians, "name": "median" if width > 1 else "norm", "mode": "lines", **style})
    clip = trial.config.outer.get("clip")
    note = (
        [f"Each point is the median of {width} outer steps; the band reaches from least to greatest."]
        if width > 1
        else []
    )
    if clip is None:
        note.append("It is not clipped: outer.clip is null.")
    else:
        line = {"color": palette.VERMILION, "dash": "dash", "width": 2}
        ends = {"x": [places[0], norms[-1].step], "y": [clip, clip]}
        traces.append({**ends, "name": f"outer.clip: {clip:g}", "mode": "lines", "line": line})
        note.append(f"{share_clipped(norms, clip):.1%} of the outer steps were clipped to {clip:g}.")
    axis = {"title": {"text": "norm before clipping"}, "type": "log"}
    layout = {"xaxis": {"title": {"text": "outer step", "standoff": 4}}, "yaxis": axis}
    heads = ("outer step", "median", "least", "greatest") if width > 1 else ("outer step", "norm")
    rows = [[place, *_spread(one)][: len(heads)] for place, one in zip(places, bins, strict=True)]
    return Chart(f"{TITLE} of trial {trial.number}", traces, layout, ChartTable(heads, rows), " ".join(note))


def binned(norms: Sequence[NormOfStep], most: int) -> list[Sequence[NormOfStep]]:
    """Divide norms in order into at most so many runs of equal length; the last may be shorter."""
    width = -(-len(norms) // most)
    return [norms[first : first + width] for first in range(0, len(norms), width)]


def share_clipped(norms: Sequence[NormOfStep], clip: float) -> float:
    """Return the share of the outer steps whose norm is above that of clipping."""
    return sum(one.norm > clip for one in norms) / len(norms)


def _spread(run: Sequence[NormOfStep]) -> tuple[float, float, float]:
    norms = [one.norm for one in run]
    return statistics.median(norms), min(norms), max(norms)


CHART = ChartKind("trial-hypergradient", TITLE, draw, order=30, needs="No outer step with a hypergradient is recorded.")
