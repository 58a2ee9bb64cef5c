"""What the page of all searches shows of one: its row in ``metaloom runs``, its tests, its time and its progress."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaloom.dashboards import rows
from metaloom.dashboards.text import better_by, scored
from metaloom.dashboards.trial_values import first_aim, interval_of, running_best, value_of, valued
from metaloom.learners.errors import BadInput, unknown
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.configurations import configurations
from metaloom.workers.records.results import mean_interval
from metaloom.workers.records.search import SearchRecord, TrialRecord

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

    @property
    def text(self) -> str:
        """The difference with its interval."""
        return better_by(self.difference)


@dataclass(frozen=True)
class SearchCard:
    """A search in the list of all.

    Attributes:
        row: What ``metaloom runs --json`` prints of it.
        interval: 95%, of the best value: over validation episodes, or over the trials whose mean it is.
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
    baselines = rows.to_json(search.baselines)
    return SearchCard(
        row=row,
        interval=None if best is None else _interval(search, best),
        leads=tuple(Lead(one["method"], one["best_better_by"]) for one in baselines),
        elapsed_s=search.elapsed_s,
        worker_seconds=sum(trial.last.seconds for trial in search.trials.values() if trial.last),
        progress=_progress(search),
        notes=tuple(search.remarks),
    )


def _interval(search: SearchRecord, best: TrialRecord) -> tuple[float, float] | None:
    """Return the interval of the best value: over trials of the same knobs where it is their mean, else over episodes.

    The trials are those that have ended as the best one has, as for its value.
    """
    found = next((one for one in configurations(search) if best in one.trials), None)
    values = [value_of(search, one) for one in (found.in_state(best.state) if found else ())]
    if len(values) > 1:
        return mean_interval(values)[1:]
    return interval_of(best, first_aim(search)[0])


def _progress(search: SearchRecord) -> list[tuple[int, float]]:
    """Return the best value so far of the finished trials that keep the constraints, by number."""
    if search.settings is None:
        return []
    kept = [one for one in valued(search) if one.state == records.FINISHED and ranking.violation(search, one) == 0]
    values = running_best([value_of(search, one) for one in kept], maximize=first_aim(search)[1])
    return [(one.number, value) for one, value in zip(kept, values, strict=True)]


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
