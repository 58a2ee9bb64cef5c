"""How a search ends: the payload of its last event, and a line for the user on what has ended it early."""

from pathlib import Path
from typing import Any

from metaloom.orchestrator.store import command
from metaloom.workers.records import configurations, ranking
from metaloom.workers.records import names as records
from metaloom.workers.records.search import SearchRecord


def end_of(state: SearchRecord, *, has_more: bool, may_propose: bool) -> dict[str, Any]:
    """Return the payload of a search's end.

    Args:
        has_more: Whether it has not suggested all the trials that were asked for.
        may_propose: Whether it could suggest or repeat a trial.
    """
    valued = [trial for trial in state.in_state(records.FINISHED, records.STOPPED) if trial.reports]
    budget = state.settings.time_budget_s if state.settings else None
    cut = bool(state.cut_off()) or (budget is not None and may_propose)
    stale = has_more and ranking.has_no_gain(state)
    ended = records.FINISHED if valued else records.FAILED
    return {"state": ended, "out_of_time": cut, **({"no_gain": True} if stale else {})}


def end_note(folder: Path, state: SearchRecord) -> str:
    """Return what has ended a search before its time, and how to extend it; empty if nothing has."""
    settings = state.settings
    if settings is None or not (state.out_of_time or state.no_gain):
        return ""
    tried, again = sum(trial.attempts > 0 for trial in state.trials.values()), command("resume", folder)
    were_tried = f"{tried} of {configurations.asked(state)} trials were tried"
    if state.no_gain:
        why = f"the last {ranking.without_gain(state)} trials brought no gain (search.patience: {settings.patience})"
        return f"{why}: {were_tried}; go on by: {again} --trials {settings.trials}"
    budget = settings.time_budget_s or 0.0
    return f"the time budget of {budget:g} s is spent: {were_tried}; extend it by: {again} --time-budget {2 * budget:g}"
