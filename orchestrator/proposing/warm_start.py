"""Warm starts: a search may begin with the best trials of an earlier one in the same store."""

from typing import Any

from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.store import Store
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.knobs.sampling import holds
from metaloom.search_spaces.resolve import searched_knobs
from metaloom.search_spaces.sections.loops import under_searched_names
from metaloom.workers.records import ranking
from metaloom.workers.records.journal import read_events
from metaloom.workers.records.names import JOURNAL_FILE
from metaloom.workers.records.search import SearchRecord

PATH = ("search", "warm_start")


def starts(experiment: Experiment, store: Store) -> list[dict[str, Any]]:
    """Return the knobs of the earlier search's best trials, with their origin; none without a warm start.

    Raises:
        SearchError: There is no such search, or it has no finished trial; the message names the place in the file.
    """
    wanted = experiment.search.warm_start
    if wanted is None:
        return []
    try:
        journal = store.existing_folder(wanted.search) / JOURNAL_FILE
        ranked = ranking.ranked(SearchRecord.replay(read_events(journal)))
        if not ranked:
            raise SearchError(f"search '{wanted.search}' has no finished trial to start from; leave warm_start out")
    except SearchError as error:
        place = [experiment.origin(PATH), ".".join(PATH), str(error)]
        raise SearchError(": ".join(part for part in place if part)) from error
    knobs = searched_knobs(experiment)
    return [
        {
            "origin": f"warm_start:{wanted.search}/{trial.number}",
            "params": under_searched_names(trial.params, knobs),
        }
        for trial in ranked[: wanted.trials]
    ]


def left_out(experiment: Experiment, given: list[dict[str, Any]]) -> list[str]:
    """Return at most one note, which lists the values of ``given`` (from ``starts``) that this search cannot take."""
    knobs = searched_knobs(experiment)
    why: dict[str, str] = {}
    for trial in given:
        for name, value in trial["params"].items():
            if name not in knobs:
                why[name] = "no searched knob here"
            elif not holds(knobs[name], value):
                why[name] = f"{value} is outside its range here"
    if not why:
        return []
    values = ", ".join(f"{name} ({reason})" for name, reason in why.items())
    return [f"warm_start leaves out values that this search cannot take, and draws its own instead: {values}"]
