"""What has ended a search before all its trials were tried, in a line for the user."""

from pathlib import Path

from metaloom.orchestrator.store import command
from metaloom.workers.records import configurations, ranking
from metaloom.workers.records.search import SearchRecord


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
