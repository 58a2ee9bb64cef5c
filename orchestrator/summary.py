"""The result of a session of a search."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaloom.orchestrator.tracking.outbox import Backlog
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.names import INTERRUPTED
from metaloom.workers.records.search import SearchRecord


@dataclass(frozen=True)
class SearchSummary:
    """The result of a session; ``dashboards.queries.search_summary`` gives everything else.

    Attributes:
        name: The search.
        store: The store's folder.
        state: ``finished``, ``failed`` or ``interrupted``.
        exit_code: 0; 1 if a trial failed; 128 + the signal's number if interrupted.
        best: Number of the best trial, or None: of the finished ones; where none has finished (a time budget stops
            all), of the stopped ones; where none has ended, of those that have reported.
        value: Its first objective.
        interval: 95% interval of its validation metric.
        tested: Its test (``trial``, ``evaluation``), or None.
        baselines: The baselines' tests on the same episodes (``method``, ``evaluation``), and by how much the best
            trial is better, episode by episode (``best_better_by``; None if the episodes are not the same).
        failed: The reasons of failed trials, by number.
        notes: Remarks for the user.
        backlogs: The events that have not reached MLflow or Optuna's database yet.
    """

    name: str
    store: Path
    state: str
    exit_code: int
    best: int | None
    value: float | None
    interval: tuple[float, float] | None
    tested: Mapping[str, Any] | None
    baselines: Sequence[Mapping[str, Any]]
    failed: Mapping[int, str]
    notes: Sequence[str] = ()
    backlogs: Sequence[Backlog] = ()


def summarize(
    folder: Path,
    state: SearchRecord,
    signal_number: int | None = None,
    *,
    notes: Sequence[str] = (),
    backlogs: Sequence[Backlog] = (),
) -> SearchSummary:
    """Return the summary of a search's present state."""
    best = ranking.best(state)
    failed = {trial.number: trial.reason or "" for trial in state.in_state(records.FAILED)}
    exit_code = 1 if failed or state.state == "failed" else 0
    if state.state == INTERRUPTED:
        exit_code = 128 + (signal_number or signal.SIGINT)
    return SearchSummary(
        name=folder.name,
        store=folder.parent.parent,
        state=state.state,
        exit_code=exit_code,
        best=None if best is None else best.number,
        value=None if best is None else ranking.value(state, best),
        interval=None if best is None else best.reports[-1].interval,
        tested=state.tested,
        baselines=tuple(state.baselines),
        failed=failed,
        notes=tuple(notes),
        backlogs=tuple(backlogs),
    )
