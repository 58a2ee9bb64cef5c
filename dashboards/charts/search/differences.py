"""By how much one trial is better than the next best ones, on the same validation episodes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from metaloom.dashboards.charts.base import Chart, ChartChoice, ChartKind, ChartSource, ChartTable
from metaloom.dashboards.charts.palette import BLUE, GREY
from metaloom.dashboards.charts.trial_points import choice, readable
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.results import paired_interval
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial_record import TrialRecord

NEXT = 10
REFERENCES = 50  # in the control; any other trial can be asked for by its number


@dataclass(frozen=True)
class Difference:
    """By how much the reference is better than ``trial`` (above 0), with the ends of its 95% interval."""

    trial: TrialRecord
    mean: float
    low: float
    high: float


def draw(source: ChartSource) -> Chart | None:
    """Draw the differences of the reference, by default the best trial, from the next ones."""
    search = source.store.record(source.name)
    ordered = with_scores(search)
    if len(ordered) < 2:
        return None
    best = ranking.best(search)
    default = best if best in ordered and best is not None else ordered[0]
    listed = {str(one.number): one for one in ordered}
    options = [(number, f"trial {number}") for number in listed]
    reference = choice(source, "reference", "Reference", options, str(default.number))
    mine = listed[reference.chosen]
    found = differences(mine, ordered)
    if not found:
        return None
    return Chart(
        title=f"Trial {mine.number} against the next ones",
        data=[_bars(found)],
        layout=_layout(mine, found),
        table=_table(mine, found),
        note=_note(mine),
        choices=(_short(reference),),
    )


def _short(reference: ChartChoice) -> ChartChoice:
    """Leave the best trials and the chosen one in the control."""
    options = [pair for at, pair in enumerate(reference.options) if at < REFERENCES or pair[0] == reference.chosen]
    return replace(reference, options=options)


def _bars(found: Sequence[Difference]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "difference",
        "x": [one.mean for one in found],
        "y": [f"trial {one.trial.number}" for one in found],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [one.high - one.mean for one in found],
            "arrayminus": [one.mean - one.low for one in found],
        },
        "text": [_text(one) for one in found],
        "hoverinfo": "text",
        "marker": {"color": BLUE, "size": 9, "symbol": "diamond"},
    }


def _layout(mine: TrialRecord, found: Sequence[Difference]) -> dict[str, Any]:
    assert mine.last is not None
    zero = {"type": "line", "xref": "x", "yref": "paper", "x0": 0, "x1": 0, "y0": 0, "y1": 1}
    names = [f"trial {one.trial.number}" for one in found]
    return {
        "xaxis": {"title": {"text": f"trial {mine.number} better by, {readable(mine.last.scored)}"}},
        "yaxis": {"type": "category", "categoryorder": "array", "categoryarray": names[::-1]},
        "shapes": [{**zero, "line": {"color": GREY, "width": 2, "dash": "dash"}}],
    }


def _table(mine: TrialRecord, found: Sequence[Difference]) -> ChartTable:
    heads = ("trial", "state", f"trial {mine.number} better by", "low", "high", "told apart")
    rows = [(one.trial.number, one.trial.state, one.mean, one.low, one.high, _verdict(one)) for one in found]
    return ChartTable(heads, rows)


def _note(mine: TrialRecord) -> str:
    assert mine.last is not None
    return (
        f"Paired by the {len(mine.last.scores)} validation episodes of the last reports, with 95% intervals: above 0 "
        f"trial {mine.number} is better. One that excludes 0 tells the two apart, without a correction for many pairs."
    )


def with_scores(search: SearchRecord) -> list[TrialRecord]:
    """List the trials with scores of episodes, the best first: the finished ones, the stopped ones, then the others."""
    endings = (records.FINISHED, records.STOPPED, records.RUNNING, records.WAITING)
    ordered = [one for state in endings for one in ranking.ranked(search, state)]
    return [one for one in ordered if one.last is not None and one.last.scores]


def differences(reference: TrialRecord, ordered: Sequence[TrialRecord]) -> list[Difference]:
    """Return the differences from the next trials in the order, of those with as many episodes as the reference."""
    assert reference.last is not None
    sign, ours, found = (1 if reference.last.scored in records.MAXIMIZED else -1), reference.last.scores, []
    for other in ordered:
        if other is not reference and other.last is not None and len(other.last.scores) == len(ours):
            found.append(Difference(other, *paired_interval(ours, other.last.scores, sign=sign)))
        if len(found) == NEXT:
            break
    return found


def _text(one: Difference) -> str:
    return f"than trial {one.trial.number} ({one.trial.state}): {one.mean:+.4g} [{one.low:.4g}, {one.high:.4g}]"


def _verdict(one: Difference) -> str:
    return "yes" if one.low > 0 or one.high < 0 else "no"


CHART = ChartKind(
    "differences",
    "Paired differences",
    draw,
    order=90,
    needs="It needs two trials that were validated on the same episodes.",
)
