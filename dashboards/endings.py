"""What may end a search before all its trials were tried, as parts of the document of ``metaloom show --json``."""

from dataclasses import dataclass
from typing import Annotated

from metaloom.workers.records import ranking
from metaloom.workers.records.configurations import asked
from metaloom.workers.records.search import SearchRecord


@dataclass(frozen=True, kw_only=True)
class TimeBudgetRow:
    """The time budget of a search."""

    seconds: Annotated[float, "only with a time budget: it, in seconds of trials over all sessions"]
    spent: Annotated[float, "only with a time budget: the seconds spent up to the last record"]
    has_ended_search: Annotated[bool, "only with a time budget: whether it has ended the search; `resume` extends it"]
    tried: Annotated[int, "only with a time budget: the number of trials begun"]
    asked: Annotated[int, "only with a time budget: the number of trials asked for"]


def time_budget(search: SearchRecord) -> TimeBudgetRow | None:
    """Return the time budget of a search and what is spent of it; None if it has none."""
    if search.settings is None or search.settings.time_budget_s is None:
        return None
    return TimeBudgetRow(
        seconds=search.settings.time_budget_s,
        spent=search.elapsed_s,
        has_ended_search=search.out_of_time,
        tried=sum(trial.attempts > 0 for trial in search.trials.values()),
        asked=asked(search),
    )


@dataclass(frozen=True, kw_only=True)
class PatienceRow:
    """The patience of a search."""

    trials: Annotated[int, "only with `search.patience`: it, in trials that may end in a row without a gain"]
    without_gain: Annotated[int, "only with `search.patience`: the trials that have ended since the last gain"]
    has_ended_search: Annotated[bool, "only with `search.patience`: whether it has ended the search"]


def patience(search: SearchRecord) -> PatienceRow | None:
    """Return the patience of a search and what is left of it; None if it has none."""
    if search.settings is None or search.settings.patience is None:
        return None
    count = ranking.without_gain(search)
    return PatienceRow(trials=search.settings.patience, without_gain=count, has_ended_search=search.no_gain)
