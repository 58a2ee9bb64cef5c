"""Pictures of facts as PNG files, made on the server."""

from dataclasses import replace

from metaloom.dashboards.canvas import png
from metaloom.dashboards.knowledge_charts.selection import TrialPlace
from metaloom.dashboards.knowledge_facts import FACTS, reading
from metaloom.dashboards.knowledge_figures import DRAWERS, Picture
from metaloom.dashboards.knowledge_figures.drawing import figure_of
from metaloom.dashboards.queries import QueryError
from metaloom.learners.errors import unknown


def png_of(place: TrialPlace, kind: str, step: int | None, panel: int) -> bytes:
    """Return a panel of a kind of facts, or what a package draws by itself, as PNG.

    Raises QueryError if there is no such kind, or nothing of it at this step.
    """
    if kind not in FACTS and kind not in DRAWERS:
        raise QueryError(unknown("kind of facts", kind, sorted({*FACTS, *DRAWERS})))
    if kind not in FACTS:
        drawn = drawn_by_itself(kind, place, step)
        if drawn is None:
            raise QueryError(f"{kind}: {place.label} has nothing of the kind")
        return png(drawn.figure)
    found = reading.facts_at(place.directory, step).facts.get(kind)
    if found is None or panel >= len(found.panels):
        raise QueryError(f"{kind}: {place.label} has no such picture")
    return png(figure_of(replace(found, panels=(found.panels[panel],), beside=False)))


def drawn_by_itself(kind: str, place: TrialPlace, step: int | None) -> Picture | None:
    """Return what a package draws without facts; None if there is nothing of it at this step."""
    return DRAWERS[kind](reading.knowledge_at(place.directory, step)[0])
