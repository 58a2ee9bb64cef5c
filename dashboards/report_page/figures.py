"""The figures of a report, as images inside the page: SVG where it is small, PNG where it is not."""

import base64
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metaloom.dashboards import plots, queries
from metaloom.dashboards.canvas import image
from metaloom.dashboards.figures import adaptation_figure
from metaloom.dashboards.report_page.timeline import timeline_plot
from metaloom.learners.errors import BadInput, MetaloomError
from metaloom.learners.redaction import redacted
from metaloom.workers.records.search import SearchRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST_SVG = 120_000  # bytes; beyond it, as of many trials, a PNG is smaller
MOST_DRAWN = 400  # lines, bars and texts of a figure, likewise
MOST_LEARNED = 8  # figures of what was learned
LARGEST_LEARNED = 1_000_000  # bytes of them together
logger = logging.getLogger("metaloom.report")


@dataclass(frozen=True)
class ReportFigure:
    """A figure inside the page.

    Attributes:
        title: Its heading.
        caption: What it shows.
        source: A ``data:`` address; empty where it could not be drawn.
        problem: Why it could not be drawn.
    """

    title: str
    caption: str
    source: str = ""
    problem: str = ""


def search_figures(
    folder: Path, name: str, search: SearchRecord, shares: Mapping[str, float] | None
) -> Iterator[ReportFigure]:
    """Draw a search; a kind of figure that it has too little for is left out.

    Args:
        folder: Of the search.
        name: Of the search.
        search: Its record.
        shares: The importance of each knob; None where there is none.
    """
    drawing: dict[str, tuple[str, Callable[[], Figure | None]]] = {
        "The best so far": (
            "Each trial's value with its 95% interval, and the best finished one so far.",
            lambda: plots.history_plot(name, search),
        ),
        "Learning curves": (
            "The value of each trial over its outer steps; the best one in black, with its 95% interval.",
            lambda: plots.curves_plot(name, search),
        ),
        "When the trials ran": (
            "A bar for each run of a trial, by the place that it took; its colour and hatch say how it ended.",
            lambda: timeline_plot(name, folder, search),
        ),
        "Importance of the knobs": (
            "How much of the values' variation each knob explains, by Optuna's PED-ANOVA.",
            lambda: None if shares is None else plots.importance_plot(name, search, shares),
        ),
        "Each knob against the value": ("One panel for each searched knob.", lambda: plots.slice_plot(name, search)),
        "Pareto front": (
            "The trials by the first two objectives, and those that no other beats in every objective.",
            lambda: plots.pareto_plot(name, search),
        ),
    }
    for title, (caption, draw) in drawing.items():
        figure = _drawn(title, caption, draw)
        if figure is not None:
            yield figure


def adaptation(store: Path, name: str, trial: int, step: int) -> ReportFigure | None:
    """Draw how a trial adapts to new tasks; None without recorded episodes."""
    caption = "The query metric before adaptation and after each inner step, with its 95% interval over the episodes."
    return _drawn("Adaptation to new tasks", caption, lambda: adaptation_figure(store, name, trial, step=step))


def learned_figures(store: Path, name: str, trial: int) -> Iterator[ReportFigure]:
    """Yield the figures of what a trial has learned, as they were drawn with its records."""
    left = LARGEST_LEARNED
    for number, row in enumerate(queries.learned(store, name, trial)):
        path = Path(row.figure)
        size = path.stat().st_size if path.is_file() else 0
        left -= size
        fits = size and left >= 0 and number < MOST_LEARNED
        source = _address("png", path.read_bytes()) if fits else ""
        yield ReportFigure(row.name, row.caption, source, "" if fits else "The figure is beside the trial's records.")


def _drawn(title: str, caption: str, draw: "Callable[[], Figure | None]") -> ReportFigure | None:
    """Draw one figure; what the search has too little for is left out, and what fails says why."""
    try:
        figure = draw()
    except BadInput:
        return None
    except (MetaloomError, OSError) as error:
        logger.warning("%s could not be drawn: %s", title, error)
        return ReportFigure(title, caption, problem=f"It could not be drawn: {redacted(str(error))}")
    return None if figure is None else ReportFigure(title, caption, embedded(figure))


def embedded(figure: "Figure") -> str:
    """Return a figure as a ``data:`` address."""
    if sum(len(axes.get_children()) for axes in figure.axes) > MOST_DRAWN:
        return _address("png", image(figure, "png"))
    svg = image(figure, "svg")
    return _address("svg+xml", svg) if len(svg) <= LARGEST_SVG else _address("png", image(figure, "png"))


def _address(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
