"""Writes the report of a search to MLflow, as files and as the description of its run, and describes each trial."""

from pathlib import Path
from typing import Protocol

from metaloom.dashboards import queries, report
from metaloom.learners.errors import MetaloomError
from metaloom.learners.redaction import redacted
from metaloom.orchestrator.tracking.batches import PARENT, Batches
from metaloom.orchestrator.tracking.outbox import Warn

DESCRIPTION_TAG = "mlflow.note.content"  # what MLflow's pages show as the description
REPORT_FILE = "report.md"
HTML_FILE = "report.html"


class HtmlReport(Protocol):
    """Returns the report of a search as one HTML file, with or without its figures."""

    def __call__(self, store: Path, name: str, *, draws: bool) -> str: ...


def describe(runs: Batches, store: Path, name: str, warn: Warn) -> None:
    """Write the report and the descriptions of a search, as its journal is now; a failure is a warning."""
    try:
        summary = queries.search_summary(store, name)
    except (MetaloomError, OSError) as error:
        warn(f"the report of '{name}' could not be written: {redacted(str(error))}")
        return
    text = redacted(report.report(summary))
    runs.text(PARENT, REPORT_FILE, text)
    runs.tag(PARENT, DESCRIPTION_TAG, text)
    for row in summary["trials"]:
        if str(row["id"]) in runs:
            line = report.trial_line(row, summary["objectives"][0]["metric"])
            runs.tag(str(row["id"]), DESCRIPTION_TAG, redacted(line))


def attach(runs: Batches, html: HtmlReport, store: Path, name: str, warn: Warn, *, draws: bool) -> bool:
    """Write the report of a search as HTML, as its journal is now; a failure is a warning. Return whether it is."""
    try:
        runs.text(PARENT, HTML_FILE, html(store, name, draws=draws))
    except Exception as error:  # drawing must not end the search
        warn(f"{HTML_FILE} of '{name}' could not be written: {redacted(str(error))}")
        return False
    return True
