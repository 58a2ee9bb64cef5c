"""What the orchestrator works out about a search for its charts, as a protocol that it implements.

Importances are Optuna's, and rungs are the scheduler's; the dashboards import neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from metaloom.workers.records.search import SearchRecord

METHODS = {"ped-anova": "PED-ANOVA", "fanova": "fANOVA"}  # of importances: their names in addresses and for people


@dataclass(frozen=True)
class KnobImportance:
    """The importance of one knob.

    Attributes:
        knob: Its name.
        share: Of all knobs' importances together, in [0, 1].
        error: The standard deviation of ``by_seed``; None of a single seed.
        by_seed: The share by each seed.
    """

    knob: str
    share: float
    error: float | None
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class ImportanceEstimate:
    """The importances of a search's knobs, as far as they are evaluated.

    Attributes:
        knobs: Of the knobs that all finished trials have.
        left_out: The knobs that only some of them have.
        trials: How many finished trials they are of.
        seeds: How many seeds are evaluated so far.
        asked: How many will be.
        how: The method, and what a seed decides, in words.
        problem: Why there are none; empty if there are.
    """

    knobs: tuple[KnobImportance, ...] = ()
    left_out: tuple[str, ...] = ()
    trials: int = 0
    seeds: int = 0
    asked: int = 0
    how: str = ""
    problem: str = ""


class Analysis(Protocol):
    """Works out what the records of a search mean."""

    def importances(self, name: str, search: SearchRecord, *, metric: str, method: str) -> ImportanceEstimate:
        """Return the importances for an objective; soon, so that some seeds may still be evaluated.

        Args:
            name: Of the search.
            search: Its record.
            metric: Of the objective.
            method: One of ``METHODS``.
        """

    def rungs(self, search: SearchRecord) -> Sequence[int]:
        """Return the outer steps at which the scheduler compares trials, up to the last one that was reached."""
