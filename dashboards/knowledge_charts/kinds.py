"""The sections of the page of meta-knowledge: one for each kind of facts that one of the trials has."""

from dataclasses import dataclass

from metaloom.dashboards.knowledge_charts.frames import is_chart
from metaloom.dashboards.knowledge_charts.images import drawn_by_itself
from metaloom.dashboards.knowledge_charts.pairs import Pair, differing, facts_over_steps, title_of
from metaloom.dashboards.knowledge_facts.panels import Images, LearnedFacts, Sheet
from metaloom.dashboards.knowledge_figures import DRAWERS


@dataclass(frozen=True)
class ShownPicture:
    """Pictures that the server draws: the number of their panel, and what they show in words."""

    panel: int
    alternative: str


@dataclass(frozen=True)
class LearnedColumn:
    """What a section shows of one trial.

    Attributes:
        side: ``own`` or ``other``.
        label: The trial, and the step.
        caption: What was learned.
        charts: Whether it has panels that are drawn in the browser.
        sheets: Its tables.
        pictures: Its pictures.
        failed: Why it could not be computed; empty if it was.
    """

    side: str
    label: str
    caption: str = ""
    charts: bool = False
    sheets: tuple[Sheet, ...] = ()
    pictures: tuple[ShownPicture, ...] = ()
    failed: str = ""


@dataclass(frozen=True)
class KindSection:
    """A kind of facts: its title, its columns, and whether there are differences and numbers over the steps."""

    kind: str
    title: str
    columns: tuple[LearnedColumn, ...]
    differs: bool
    over_steps: bool


def sections_of(pair: Pair) -> list[KindSection]:
    """Return the sections of a page, in the order of the kinds; last what packages draw by themselves."""
    own = [
        KindSection(
            kind,
            pair.title(kind),
            tuple(_column(pair, kind, side) for side in (("own", "other") if pair.others else ("own",))),
            differing(pair, kind) is not None,
            facts_over_steps(pair.own, kind) is not None,
        )
        for kind in pair.kinds
    ]
    return own + [section for kind in sorted(DRAWERS) if (section := _drawn(pair, kind)) is not None]


def _drawn(pair: Pair, kind: str) -> KindSection | None:
    """Return the section of what a package draws by itself; None if neither trial has something of it."""
    places = [("own", pair.own)] if pair.other is None else [("own", pair.own), ("other", pair.other)]
    found = [(side, drawn_by_itself(kind, place, place.near(pair.step))) for side, place in places]
    if all(one is None for _, one in found):
        return None
    columns = [
        LearnedColumn(side, pair.label(side))
        if one is None
        else LearnedColumn(side, pair.label(side), one.caption, pictures=(ShownPicture(0, one.caption),))
        for side, one in found
    ]
    name = next(one.name for _, one in found if one is not None)
    return KindSection(kind, title_of(name), tuple(columns), differs=False, over_steps=False)


def _column(pair: Pair, kind: str, side: str) -> LearnedColumn:
    at, label = (pair.facts if side == "own" else pair.others), pair.label(side)
    assert at is not None  # a page has a column for each trial it shows
    if kind in at.failed:
        return LearnedColumn(side, label, failed=at.failed[kind])
    if (found := at.facts.get(kind)) is None:
        return LearnedColumn(side, label)
    sheets = tuple(panel for panel in found.panels if isinstance(panel, Sheet))
    charts = any(is_chart(panel) for panel in found.panels)
    return LearnedColumn(side, label, found.caption, charts, sheets, _pictures(found))


def _pictures(facts: LearnedFacts) -> tuple[ShownPicture, ...]:
    found = []
    for number, panel in enumerate(facts.panels):
        if isinstance(panel, Images):
            rows = [name for name, _ in panel.rows if name]
            named = f"rows: {', '.join(rows)}; " if rows else f"{len(panel.rows)} rows; "
            found.append(
                ShownPicture(number, f"Pictures in {named}columns: {', '.join(panel.columns)}. {facts.caption}")
            )
    return tuple(found)
