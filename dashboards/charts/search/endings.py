"""How the trials ended: finished, stopped at which step, failed by which kind of error."""

import re
from collections.abc import Sequence
from typing import Any

from metaloom.dashboards.charts.base import Chart, ChartKind, ChartSource, ChartTable
from metaloom.dashboards.charts.palette import STATE_COLOURS
from metaloom.dashboards.charts.trial_points import rung_of, rungs_of
from metaloom.workers.records import names as records
from metaloom.workers.records.trial_record import TrialRecord

PATTERNS = {records.FINISHED: "", records.STOPPED: "/", records.FAILED: "x", records.RUNNING: ".", records.WAITING: "-"}
WHERE = re.compile(r"^trial \d+(, outer step \d+)?:? ")  # comes before the error itself
DETAIL = re.compile(r"[:;(]| is -?(?:\d|nan|inf)")  # begins what differs between errors of one kind
KIND_LENGTH = 60  # characters of the kind of an error
MOST_KINDS = 12  # of one state; the rarest are counted together
TOLD_TRIALS = 20


def draw(source: ChartSource) -> Chart | None:
    """Count the trials by their endings."""
    search = source.store.record(source.name)
    if not search.trials:
        return None
    found = endings([one for _, one in sorted(search.trials.items())], rungs_of(source, search))
    labels = [label for mine in found.values() for label in mine]
    data = [_bars(state, mine) for state, mine in found.items() if mine]
    total = len(search.trials)
    rows = [
        (label, len(trials), len(trials) / total, _numbers(trials), trials[0].reason or "")
        for mine in found.values()
        for label, trials in mine.items()
    ]
    layout = {
        "barmode": "stack",
        "height": 120 + 32 * len(labels),
        "xaxis": {"title": {"text": "trials"}},
        "yaxis": {"type": "category", "categoryorder": "array", "categoryarray": labels[::-1]},
    }
    table = ChartTable(("ending", "trials", "share", "numbers", "reason of the first"), rows)
    return Chart("How the trials ended", data, layout, table)


def endings(trials: Sequence[TrialRecord], rungs: Sequence[int]) -> dict[str, dict[str, list[TrialRecord]]]:
    """Return the trials by state and then by ending, the stops in the order of their steps."""
    found: dict[str, dict[str, list[TrialRecord]]] = {state: {} for state in PATTERNS}
    for trial in sorted(trials, key=lambda one: (one.step if one.state == records.STOPPED else 0, one.number)):
        found[trial.state].setdefault(ending_of(trial, rungs), []).append(trial)
    return {state: _merged(mine, state) for state, mine in found.items()}


def ending_of(trial: TrialRecord, rungs: Sequence[int]) -> str:
    """Name a trial's ending: a stop by its rung, where the scheduler has rungs, and a failure by the error's kind."""
    if trial.state == records.STOPPED:
        if trial.reason == records.OUT_OF_TIME:
            return "stopped: out of time"
        rung = rung_of(trial, rungs)
        return f"stopped at step {trial.step}" if rung is None else f"stopped at rung {rung}"
    if trial.state == records.FAILED:
        reason = WHERE.sub("", trial.reason or "no reason")
        return f"failed: {DETAIL.split(reason)[0].strip()[:KIND_LENGTH]}"
    return trial.state


def _merged(groups: dict[str, list[TrialRecord]], state: str) -> dict[str, list[TrialRecord]]:
    """Count the rarest endings together where there are many."""
    if len(groups) <= MOST_KINDS:
        return groups
    kept = set(sorted(groups, key=lambda label: -len(groups[label]))[: MOST_KINDS - 1])
    rest = [one for label, mine in groups.items() if label not in kept for one in mine]
    return {**{label: mine for label, mine in groups.items() if label in kept}, f"{state}: other endings": rest}


def _bars(state: str, groups: dict[str, list[TrialRecord]]) -> dict[str, Any]:
    counts = [len(trials) for trials in groups.values()]
    return {
        "type": "bar",
        "orientation": "h",
        "name": state,
        "x": counts,
        "y": list(groups),
        "text": [str(count) for count in counts],
        "textposition": "outside",  # inside, its colour is that against a full bar, and a pattern is mostly ground
        "cliponaxis": False,
        "customdata": [trials[0].reason or "" for trials in groups.values()],
        "hovertemplate": "%{y}: %{x}<br>%{customdata}<extra></extra>",
        "marker": {"color": STATE_COLOURS[state], "pattern": {"shape": PATTERNS[state], "size": 5}},
    }


def _numbers(trials: Sequence[TrialRecord]) -> str:
    told = ", ".join(str(one.number) for one in trials[:TOLD_TRIALS])
    return told if len(trials) <= TOLD_TRIALS else f"{told} and {len(trials) - TOLD_TRIALS} more"


CHART = ChartKind("endings", "How the trials ended", draw, order=100, needs="No trial has begun.")
