"""Extends a search: a larger time budget, more trials. The journal has it before it takes effect."""

from dataclasses import dataclass
from pathlib import Path

from metaloom.orchestrator.clock import noted_time
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.journal import Journal
from metaloom.search_spaces.sections.strategies import KIND, schedulers
from metaloom.workers.records import names as records
from metaloom.workers.records.search import SearchRecord


@dataclass(frozen=True)
class Extension:
    """What a search is to have instead of its own; None leaves it.

    Attributes:
        time_budget_s: Seconds of trials, over all sessions.
        trials: Of the whole search.
    """

    time_budget_s: float | None = None
    trials: int | None = None

    def goes_on(self, folder: Path, state: SearchRecord) -> bool:
        """Return whether a search that has ended goes on so; raises SearchError for what is no more than it has."""
        if state.out_of_time and self.time_budget_s is not None:
            return True
        if self.trials is None or (state.settings is not None and self.trials == state.settings.trials <= state.begun):
            return False
        self.check(folder, state)
        return self.trials > state.begun

    def check(self, folder: Path, state: SearchRecord) -> None:
        """Raise SearchError if the search in ``folder`` cannot be extended so."""
        assert state.settings is not None  # its journal has its first event
        spent = max(state.elapsed_s, noted_time(folder, state.session))
        ended = state.state in (records.FINISHED, records.FAILED)
        budget = state.settings.time_budget_s if self.time_budget_s is None else self.time_budget_s
        if self.time_budget_s is not None and self.time_budget_s <= spent:
            no_more = f"has spent {spent:.1f} s, so --time-budget {self.time_budget_s:g} is no more time"
            raise SearchError(f"search '{folder.name}' {no_more}")
        if self.trials is None:
            return
        if self.trials < state.begun + ended:
            begun = f"has {state.begun} trials already, so --trials {self.trials} is no more"
            raise SearchError(f"search '{folder.name}' {begun}; give the number of all its trials together")
        if budget is not None and budget <= spent:
            no_time = f"has spent {spent:.1f} s of its time budget of {budget:g} s; give --time-budget too"
            raise SearchError(f"search '{folder.name}' {no_time}")
        kind = str(state.settings.scheduler[KIND])
        if self.trials != state.settings.trials and schedulers()[kind].copies_state:
            population = f"the trials of search '{folder.name}' are one population ({kind}), which cannot grow"
            raise SearchError(f"{population}; begin a new search with search.warm_start: {folder.name}")


def extend(journal: Journal, wanted: Extension) -> None:
    """Journal what a search is to have from now on, if that is new; raises SearchError if it cannot have it."""
    state = SearchRecord.replay(journal.events())
    wanted.check(journal.folder, state)
    assert state.settings is not None  # its journal has its first event
    before = Extension(state.settings.time_budget_s, state.settings.trials)
    after = Extension(
        before.time_budget_s if wanted.time_budget_s is None else wanted.time_budget_s, wanted.trials or before.trials
    )
    is_new = after.trials != before.trials or (state.no_gain and wanted.trials is not None)
    if wanted.time_budget_s is None and not is_new:
        return
    extension = {
        "time_budget_s": after.time_budget_s,
        "trials": [trial.number for trial in state.cut_off()],
        **({"asked": after.trials} if is_new else {}),
    }
    journal.append(records.SEARCH_EXTENDED, extension)
