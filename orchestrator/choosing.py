"""The trial of a search that a command names: by its number, or the best one."""

from pathlib import Path
from typing import Any

from metaloom.dashboards import queries
from metaloom.dashboards.text import without_best
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.store import store_option

BEST = "best"


def chosen_trial(store: Path, name: str, trial: str) -> dict[str, Any]:
    """Return the row of a trial in the search's summary.

    Args:
        trial: Its number, or ``best``.

    Raises:
        SearchError: There is no such trial, or it has learned nothing yet.
    """
    summary = queries.search_summary(store, name)
    if trial == BEST:
        if summary["best"] is None:
            why = f"search '{name}' has no best trial: {without_best(summary).rstrip('.')}"
            raise SearchError(f"{why}; see: metaloom show {name}{store_option(store)}")
        return dict(summary["best"])
    rows = {str(row["id"]): row for row in summary["trials"]}
    if trial not in rows:
        raise SearchError(f"search '{name}' has no trial {trial}; it has {', '.join(rows) or 'none'} (or 'best')")
    return dict(rows[trial])
