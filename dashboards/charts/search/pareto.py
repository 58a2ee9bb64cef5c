"""Two objectives against each other: the trials, and the front of those that no other beats in every objective."""

import math
from collections.abc import Sequence
from typing import Any

from metaloom.dashboards.charts.base import Chart, ChartChoice, ChartKind, ChartSource, ChartTable
from metaloom.dashboards.charts.palette import BLUE, GREY, ORANGE, VERMILION
from metaloom.dashboards.charts.trial_points import choice, readable, shown, trial_text
from metaloom.dashboards.trial_values import value_of
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial_record import TrialRecord

FRONT, OTHERS, INFEASIBLE, UNFINISHED = "Pareto front", "dominated", "breaks a constraint", "not finished"
STYLES = {
    FRONT: {"color": VERMILION, "symbol": "star", "size": 11},
    OTHERS: {"color": BLUE, "symbol": "circle", "size": 7},
    INFEASIBLE: {"color": ORANGE, "symbol": "x", "size": 8},
    UNFINISHED: {"color": GREY, "symbol": "diamond-open", "size": 7},
}


def draw(source: ChartSource) -> Chart | None:
    """Draw the trials by two objectives; None for a search of one."""
    search = source.store.record(source.name)
    aims = [aim.metric for aim in search.settings.objectives] if search.settings else []
    if len(aims) < 2:
        return None
    across = choice(source, "x", "Across", [(one, readable(one)) for one in aims], aims[0])
    others = [one for one in aims if one != across.chosen]
    given = source.asked.get("y", "")
    up = ChartChoice("y", "Up", [(one, readable(one)) for one in others], given if given in others else others[0])
    trials = [
        one
        for _, one in sorted(search.trials.items())
        if all(math.isfinite(value_of(search, one, metric)) for metric in (across.chosen, up.chosen))
    ]
    if not trials:
        return None
    groups = groups_of(search, trials)
    data = [_line(search, groups[FRONT], across.chosen, up.chosen)] if len(aims) == 2 and groups[FRONT] else []
    data += [_points(search, name, group, across.chosen, up.chosen) for name, group in groups.items() if group]
    more = "" if len(aims) == 2 else f" It is that of all {len(aims)} objectives, so it need be none in this plane."
    return Chart(
        title=f"{readable(up.chosen)} against {readable(across.chosen)}",
        data=data,
        layout={
            "xaxis": {"title": {"text": readable(across.chosen)}},
            "yaxis": {"title": {"text": readable(up.chosen)}},
        },
        table=_table(search, groups, aims),
        note=f"The front is of finished trials that keep the constraints.{more}",
        choices=shown(across, up),
    )


def groups_of(search: SearchRecord, trials: Sequence[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """Return the trials by what they are to the front."""
    front = {one.number for one in ranking.pareto_front(search)}
    groups: dict[str, list[TrialRecord]] = {name: [] for name in STYLES}
    for one in trials:
        if one.number in front:
            groups[FRONT].append(one)
        elif ranking.violation(search, one) > 0:
            groups[INFEASIBLE].append(one)
        else:
            groups[OTHERS if one.state == records.FINISHED else UNFINISHED].append(one)
    return groups


def _line(search: SearchRecord, front: Sequence[TrialRecord], across: str, up: str) -> dict[str, Any]:
    points = sorted((value_of(search, one, across), value_of(search, one, up)) for one in front)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"front of {len(front)} trials",
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "line": {"color": VERMILION, "width": 1, "dash": "dot"},
        "hoverinfo": "skip",
    }


def _points(search: SearchRecord, name: str, trials: Sequence[TrialRecord], across: str, up: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [value_of(search, one, across) for one in trials],
        "y": [value_of(search, one, up) for one in trials],
        "text": [f"{trial_text(search, one, across)}<br>{up}: {value_of(search, one, up):.4g}" for one in trials],
        "hoverinfo": "text",
        "marker": STYLES[name],
    }


def _table(search: SearchRecord, groups: dict[str, list[TrialRecord]], aims: Sequence[str]) -> ChartTable:
    rows = [
        (one.number, one.state, name, *(value_of(search, one, aim) for aim in aims), ranking.violation(search, one))
        for name, group in groups.items()
        for one in group
    ]
    return ChartTable(("trial", "state", "group", *map(readable, aims), "violation of constraints"), rows)


CHART = ChartKind(
    "pareto", "Pareto front", draw, order=80, needs="It needs two objectives, and trials with values of both."
)
