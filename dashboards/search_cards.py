"""What the page of all searches shows of one: its row in ``metaloom runs``, its tests, its time and its progress."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaloom.dashboards import rows
from metaloom.dashboards.text import scored
from metaloom.learners.errors import BadInput, unknown
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord

WIDTH, HEIGHT, EDGE = 96, 24, 2  # of a sparkline, in its own units


@dataclass(frozen=True)
class Lead:
    """By how much the best trial is better than a baseline, on the same test episodes.

    Attributes:
        method: The baseline.
        difference: Its ``mean`` and ``interval``; None where the episodes are not the same.
    """

    method: str
    difference: Mapping[str, Any] | None


@dataclass(frozen=True)
class SearchCard:
    """A search in the list of all.

    Attributes:
        row: What ``metaloom runs --json`` prints of it.
        interval: 95%, of the best trial's value over validation episodes.
        leads: Over each baseline.
        elapsed_s: Time spent on trials, over all sessions.
        worker_seconds: The time of the outer steps of all trials together.
        progress: The best value so far, by the numbers of the trials.
        notes: The user's remarks.
    """

    row: rows.ListedSearch
    interval: tuple[float, float] | None = None
    leads: tuple[Lead, ...] = ()
    elapsed_s: float = 0.0
    worker_seconds: float = 0.0
    progress: Sequence[tuple[int, float]] = ()
    notes: tuple[str, ...] = ()

    @property
    def ended(self) -> int:
        """The number of trials in a final state."""
        return sum(self.row.trials[state] for state in (records.FINISHED, records.STOPPED, records.FAILED))

    @property
    def metric(self) -> str:
        """The first objective; empty where there is none."""
        return self.row.objectives[0].metric if self.row.objectives else ""

    @property
    def value_text(self) -> str:
        """The best value with its interval."""
        return scored(self.row.value, self.interval)

    @property
    def lead(self) -> float | None:
        """The smallest lead over a baseline, which the list is sorted by; None where none is known."""
        known = [one.difference["mean"] for one in self.leads if one.difference and one.difference["mean"] is not None]
        return min(known, default=None)

    @property
    def text(self) -> str:
        """What the text filter looks at."""
        return "\n".join((self.row.name, self.row.state, self.metric, *self.notes, *self.row.warnings)).lower()


def card_of(row: rows.ListedSearch, search: SearchRecord | None) -> SearchCard:
    """Return the card of a search; ``search`` is its record, None where it cannot be read."""
    if search is None:
        return SearchCard(row)
    best = None if row.best is None else search.trials[row.best]
    last = best.last if best else None
    baselines = rows.to_json(search.baselines)
    return SearchCard(
        row=row,
        interval=last.interval if last and row.objectives and last.scored == row.objectives[0].metric else None,
        leads=tuple(Lead(one["method"], one["best_better_by"]) for one in baselines),
        elapsed_s=search.elapsed_s,
        worker_seconds=sum(trial.last.seconds for trial in search.trials.values() if trial.last),
        progress=ranking.best_so_far(search),
        notes=tuple(search.remarks),
    )


SORTS: Mapping[str, Any] = {
    "name": lambda card: card.row.name,
    "state": lambda card: card.row.state,
    "progress": lambda card: card.ended,
    "value": lambda card: card.row.value,
    "lead": lambda card: card.lead,
    "time": lambda card: card.elapsed_s,
    "cost": lambda card: card.worker_seconds,
    "updated": lambda card: card.row.updated,
}


def chosen_cards(
    cards: Sequence[SearchCard], *, text: str = "", states: Sequence[str] = (), sort: str = ""
) -> list[SearchCard]:
    """Return the cards that contain a text and are in any of some states; no state stands for all.

    Args:
        cards: The newest first, which stays their order without ``sort``.
        text: In any case.
        states: Of searches.
        sort: A name in ``SORTS``, after ``-`` from the largest down; cards without a value come last.

    Raises:
        BadInput: There is no such order.
    """
    found = [card for card in cards if text.lower() in card.text and (not states or card.row.state in states)]
    if not sort:
        return found
    name = sort.removeprefix("-")
    if name not in SORTS:
        raise BadInput(unknown("order", name, tuple(SORTS)))
    read = SORTS[name]
    known = [card for card in found if read(card) is not None]
    return sorted(known, key=read, reverse=sort.startswith("-")) + [card for card in found if read(card) is None]


def sparkline(progress: Sequence[tuple[int, float]]) -> str:
    """Return the points of the polyline of the best value so far; empty with fewer than two trials."""
    if len(progress) < 2:
        return ""
    across, up = zip(*progress, strict=True)
    wide, high = (across[-1] - across[0]) or 1, (max(up) - min(up)) or 1.0
    points, before = [], HEIGHT - EDGE - (up[0] - min(up)) / high * (HEIGHT - 2 * EDGE)
    for place, (number, value) in enumerate(progress):
        left = EDGE + (number - across[0]) / wide * (WIDTH - 2 * EDGE)
        top = HEIGHT - EDGE - (value - min(up)) / high * (HEIGHT - 2 * EDGE)
        if top != before:  # a step: level up to this trial
            points.append(f"{left:.1f},{before:.1f}")
        if top != before or place in (0, len(progress) - 1):
            points.append(f"{left:.1f},{top:.1f}")
        before = top
    return " ".join(points)
