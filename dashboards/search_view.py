"""A search as its page shows it: record, document and table of trials, made once for each version of its records."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from metaloom.dashboards import queries, rows
from metaloom.dashboards.endings import TimeBudgetRow
from metaloom.dashboards.search_cards import SearchCard, card_of
from metaloom.dashboards.store_reader import OpenStore
from metaloom.dashboards.trial_table import TrialTable, trial_table
from metaloom.learners.errors import MetaloomError
from metaloom.workers.records import names as records
from metaloom.workers.records.search import SearchRecord

SEARCHES_KEPT = 8  # in memory; a page of one more is made afresh

_views: "WeakKeyDictionary[OpenStore, dict[str, SearchView]]" = WeakKeyDictionary()
_cards: "WeakKeyDictionary[OpenStore, dict[str, tuple[str, SearchCard]]]" = WeakKeyDictionary()
_lock = threading.Lock()


@dataclass(frozen=True)
class SearchView:
    """A search at one version of its records.

    Attributes:
        name: The search.
        version: Of its records.
        record: What its journal adds up to.
        row: What ``metaloom show`` tells of it.
    """

    name: str
    version: str
    record: SearchRecord
    row: rows.SearchRow

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """The document of ``metaloom show --json``."""
        return dict(rows.to_json(self.row))

    @cached_property
    def table(self) -> TrialTable:
        """Its trials."""
        return trial_table(self.record, self.row)

    @property
    def ended(self) -> int:
        """The number of trials in a final state."""
        return sum(trial.ended for trial in self.record.trials.values())

    def elapsed_s(self, now: float | None = None) -> float:
        """Return the time spent on trials, over all sessions; while the search runs, up to now."""
        if self.row.state != records.RUNNING:
            return self.record.elapsed_s
        return self.record.elapsed_at(time.time() if now is None else now)

    def remaining(self, now: float | None = None) -> str:
        """Say what is left of the budget; empty where the search has ended."""
        if self.row.state == records.FINISHED:
            return ""
        left = max(0, (self.row.asked or 0) - self.ended)
        parts = [f"{left} of {self.row.asked} trials"] if self.row.asked is not None else []
        budget = self.row.time_budget
        if isinstance(budget, TimeBudgetRow):
            seconds = max(0.0, budget.seconds - self.elapsed_s(now))
            parts.append(f"{seconds / 60:.0f} min of the time budget" if seconds >= 90 else f"{seconds:.0f} s of it")
        return ", ".join(parts)


def view_of(store: OpenStore, name: str) -> SearchView:
    """Return a search as it is now; raises as ``queries.search_record``."""
    version = store.version(name)
    with _lock:
        views = _views.setdefault(store, {})
        found = views.get(name)
    if found is not None and found.version == version:
        return found
    record = store.record(name)
    found = SearchView(name, version, record, queries.search_row(store.path, name, record))
    with _lock:
        views.pop(name, None)
        views[name] = found
        while len(views) > SEARCHES_KEPT:
            del views[next(iter(views))]
    return found


def cards_of(store: OpenStore) -> tuple[SearchCard, ...]:
    """Return the cards of all searches, the newest first; one that cannot be read has a card that says why."""
    listed = store.listed()
    with _lock:
        before = _cards.get(store, {})
    found: dict[str, tuple[str, SearchCard]] = {}
    for row in listed:
        version = f"{store.version(row.name)} {row.state}"
        known = before.get(row.name)
        found[row.name] = known if known and known[0] == version else (version, _card(store, row))
    with _lock:
        _cards[store] = found
    return tuple(found[row.name][1] for row in listed)


def _card(store: OpenStore, row: rows.ListedSearch) -> SearchCard:
    if row.state in (records.EMPTY, records.UNREADABLE):
        return card_of(row, None)
    try:
        return card_of(row, store.record(row.name))
    except MetaloomError as problem:  # it was removed, or damaged, since it was listed
        return card_of(replace(row, state=records.UNREADABLE, warnings=(str(problem),)), None)
