"""Puts a report together: ``metaloom report`` writes it, and the page of a search shows it."""

import base64
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TypeAlias

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from metaloom.dashboards import queries, text
from metaloom.dashboards.report_page import contents, figures
from metaloom.learners.redaction import redacted
from metaloom.workers.records.search import SearchRecord

FOLDER = Path(__file__).resolve().parent
Shares: TypeAlias = Callable[[str, SearchRecord], Mapping[str, float] | None]
TEMPLATE, STYLE = "report.html", "report.css"


def html_report(store: Path, name: str, *, shares: Shares, draws: bool = True) -> str:
    """Return the report of a search as one HTML document that asks for nothing else.

    Args:
        store: Folder of all records.
        name: The search.
        shares: Works out the importance of each knob; None where the search has too little for it.
        draws: Draw the search's figures; without them the report says which command draws them.

    Raises:
        QueryError: There is no such search, or it has no records.
        RecordsError: Its records cannot be read.
    """
    folder, search = queries.search_folder(store, name), queries.search_record(store, name)
    summary = queries.search_summary(store, name)
    best = summary["best"]
    best_trials, all_trials = contents.trial_tables(summary)
    drawn = list(figures.search_figures(folder, name, search, shares(name, search))) if draws else []
    adapted = None if best is None or not draws else figures.adaptation(store, name, best["id"], best["steps"])
    images = ReportImages()
    page = redacted(
        _environment()
        .get_template(TEMPLATE)
        .render(
            summary=summary,
            style=style(),
            policy=policy(),
            facts=contents.facts(summary, search),
            searched=contents.searched(summary, search),
            knobs=contents.knob_table(summary, search),
            tests=contents.test_table(summary),
            without_best=text.without_best(summary) if best is None else "",
            figures=[*drawn, *([adapted] if adapted else [])],
            draws=draws,
            learned=[] if best is None else list(figures.learned_figures(store, name, best["id"])),
            parts=list(contents.part_tables(summary)),
            trials=best_trials,
            all_trials=all_trials,
            listings=list(contents.listings(folder, summary, search)),
            commands=contents.commands(summary, search),
            versions=contents.versions(),
            written=time.strftime("%Y-%m-%d %H:%M:%S %Z"),
            placed=images.place,
        )
    )
    return images.put_into(page)


class ReportImages:
    """The images of a page: they are put in at the end, because looking for secrets in them takes seconds."""

    def __init__(self) -> None:
        self._mark = f"image-{secrets.token_hex(8)}-"  # which no text of a user has
        self._sources: list[str] = []

    def place(self, source: str) -> str:
        """Return what stands for an image in the page."""
        self._sources.append(source)
        return f"{self._mark}{len(self._sources) - 1}"

    def put_into(self, page: str) -> str:
        """Return the page with its images."""
        return re.sub(rf"{self._mark}(\d+)", lambda found: self._sources[int(found[1])], page)


@cache
def style() -> str:
    """Return the style sheet that stands in the page."""
    return (FOLDER / STYLE).read_text(encoding="utf-8")


@cache
def policy() -> str:
    """Return the content security policy of a report: nothing is loaded and no script runs; its own style applies."""
    digest = base64.b64encode(hashlib.sha256(style().encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
