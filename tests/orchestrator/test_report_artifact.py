"""The HTML report of a search is a file of its run in MLflow."""

from pathlib import Path

from metaloom.orchestrator import housekeeping
from metaloom.orchestrator.proposing import search_report
from metaloom.orchestrator.tracking.outboxes import start_projections, synchronize
from metaloom.workers.records import names as records
from tests.orchestrator.test_runs_page import events
from tests.support.tracked import STARTED, Search


def ended(store: Path, *, after_s: float, state: str = records.FINISHED) -> Search:
    """Return a search whose records its own session has sent, so long after its beginning."""
    made = Search(store, "short")
    made.tell(STARTED, *events(0, 1))
    made.now += after_s
    made.tell((records.SEARCH_ENDED, None, {"state": state}))
    assert start_projections(made.folder, **made.arguments(), html=search_report.html_of).close(60.0) == []
    made.journal.close()
    assert made.warnings == []
    return made


def html_report(search: Search) -> str:
    parent, _ = search.runs()
    return Path(search.client().download_artifacts(parent.info.run_id, "report.html")).read_text()


def synchronized(search: Search) -> str:
    """Send what is lacking, and return the report."""
    assert synchronize(search.store, "short", warn=search.warn, html=search_report.html_of) == ([], [])
    assert search.warnings == []
    return html_report(search)


def test_the_figures_of_a_short_search_are_drawn_when_it_is_synchronized(tmp_path: Path) -> None:
    search = ended(tmp_path / "store", after_s=3.0)
    text = html_report(search)
    assert "At a glance" in text and "metaloom sync short" in text and "data:image" not in text
    text = synchronized(search)
    assert text.count("data:image") >= 3 and "metaloom sync short" not in text
    (file,) = search.store.rglob("report.html")
    written = file.stat().st_mtime_ns
    assert synchronized(search) == text and file.stat().st_mtime_ns == written  # it is made once
    assert housekeeping.note("short", "a <remark>", store=search.store) == []
    assert file.stat().st_mtime_ns == written  # a remark is written at once; this file with the next of these
    assert "a &lt;remark&gt;" in synchronized(search)


def test_a_long_search_has_its_figures_at_its_end(tmp_path: Path) -> None:
    text = html_report(ended(tmp_path / "store", after_s=100.0))
    assert text.count("data:image") >= 3 and "Learning curves" in text


def test_an_interrupted_search_does_not_wait_for_it(tmp_path: Path) -> None:
    search = ended(tmp_path / "store", after_s=100.0, state=records.INTERRUPTED)
    assert list(search.store.rglob("report.md")) and not list(search.store.rglob("report.html"))
    assert "interrupted" in synchronized(search)


def test_a_report_that_cannot_be_made_is_a_warning(tmp_path: Path) -> None:
    search = Search(tmp_path / "store", "short")

    def html(store: Path, name: str, *, draws: bool) -> str:
        raise OSError("no space for http://user:secret@host")

    search.tell(STARTED, *events(0), (records.SEARCH_ENDED, None, {"state": records.FINISHED}))
    assert start_projections(search.folder, **search.arguments(), html=html).close(60.0) == []
    search.journal.close()
    (warning,) = search.warnings
    assert warning == "report.html of 'short' could not be written: no space for http://user:***@host"
    assert search.runs()[0].info.status == "FINISHED"
