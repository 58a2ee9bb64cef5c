"""The report of a search as HTML, with the importances of its knobs by Optuna."""

from collections.abc import Mapping
from pathlib import Path

from metaloom.learners.errors import BadInput
from metaloom.workers.records.search import SearchRecord


def html_of(store: Path, name: str, *, draws: bool = True) -> str:
    """Return the report of a search as HTML; without its figures, it says how to get them.

    Raises:
        QueryError: There is no such search, or it has no records.
        RecordsError: Its records cannot be read.
    """
    from metaloom.dashboards.report_page.page import html_report  # jinja2 and matplotlib: only for a report

    return html_report(store, name, shares=shares, draws=draws)


def shares(name: str, search: SearchRecord) -> Mapping[str, float] | None:
    """Return the importance of each knob; None where the search has too little for it."""
    from metaloom.orchestrator.proposing.importance import importances  # optuna, only where it is needed

    try:
        return importances(name, search)[0]
    except BadInput:
        return None
