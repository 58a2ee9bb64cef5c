"""The facts of a trial, and of the one beside it, at the step that is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass

from metaloom.dashboards.knowledge_charts import comparing
from metaloom.dashboards.knowledge_charts.selection import TrialPlace, asked_step, other_of, place_of
from metaloom.dashboards.knowledge_facts import FACTS, LearnedFacts, reading
from metaloom.dashboards.knowledge_facts.reading import FactsAt
from metaloom.dashboards.knowledge_figures import DRAWERS
from metaloom.dashboards.queries import QueryError
from metaloom.dashboards.store_reader import OpenStore
from metaloom.learners.errors import unknown


@dataclass(frozen=True)
class Pair:
    """A trial's facts, and those of another trial, if one is beside it.

    Attributes:
        own: The trial.
        facts: What it had learned at the step.
        other: The trial beside it.
        others: What that one had learned at the same step, or at its last one before.
        step: Of the snapshot that is shown; None is the last state.
    """

    own: TrialPlace
    facts: FactsAt
    other: TrialPlace | None
    others: FactsAt | None
    step: int | None

    def title(self, kind: str) -> str:
        """Return the title of a kind of facts; raises QueryError if there is no such kind."""
        if kind not in FACTS and kind not in DRAWERS:
            raise QueryError(unknown("kind of facts", kind, sorted({*FACTS, *DRAWERS})))
        found = self.facts.facts.get(kind) or (self.others and self.others.facts.get(kind))
        return title_of(kind if not found else found.name)

    def label(self, side: str) -> str:
        """Return what a side shows: the trial, and the step where the two differ."""
        place, at = (self.own, self.facts) if side == "own" else (self.other, self.others)
        assert place is not None and at is not None  # who asks for a side has made sure
        return f"{place.label}, step {at.step}"

    @property
    def difference(self) -> str:
        """What the numbers of a difference are."""
        return f"{self.label('other')} minus {self.label('own')}"

    @property
    def kinds(self) -> list[str]:
        """The kinds of which one of the two has something, or failed to have it."""
        both = [at for at in (self.facts, self.others) if at is not None]
        return sorted({kind for at in both for kind in (*at.facts, *at.failed)})


def pair_of(store: OpenStore, name: str, trial: int, asked: Mapping[str, str]) -> Pair:
    """Return what a query string asks for: ``step`` and ``with``; raises QueryError, BadInput or CheckpointError."""
    own, other = place_of(store, name, trial), other_of(store, name, asked.get("with", ""))
    step = own.near(asked_step(asked))
    facts = reading.facts_at(own.directory, step)
    others = None if other is None else reading.facts_at(other.directory, other.near(step))
    return Pair(own, facts, other, others, step)


def differing(pair: Pair, kind: str) -> LearnedFacts | None:
    """Return the other trial's numbers of a kind minus the trial's own; None where none have the same names."""
    if pair.others is None or kind not in pair.facts.facts or kind not in pair.others.facts:
        return None
    return comparing.difference(pair.facts.facts[kind], pair.others.facts[kind])


def facts_over_steps(place: TrialPlace, kind: str) -> LearnedFacts | None:
    """Return a kind's numbers over the outer steps; None where fewer than two steps are kept."""
    return comparing.over_steps(reading.over_steps(place.directory, kind)) if place.kept else None


def title_of(name: str) -> str:
    """Return a file's name as a title."""
    return name.replace("-", " ").capitalize()
