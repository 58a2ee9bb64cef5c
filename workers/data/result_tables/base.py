"""The interface of a table of results: configurations of knobs, each with the learning curves that were measured.

A table is what a simulated search asks instead of training. Its search space is spelled as an experiment's: knobs with
their domains, asked for one by one, so that a knob may depend on a choice before it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from metaloom.learners.domains import Choice, Int
from metaloom.search_spaces.knobs.sampling import Domain, Suggest, Value
from metaloom.workers.records import names
from metaloom.workers.records.trial import Report

if TYPE_CHECKING:  # the schema's pydantic is absent where a bundle is served
    from metaloom.search_spaces.resolve import Resolved
    from metaloom.search_spaces.sections.settings import Objective

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Curve:
    """What training one configuration once has shown.

    Attributes:
        reports: By step, ascending. ``seconds`` of each count from the beginning of the training; the last is
            ``finished`` if the training was seen to its end.
        problem: Why the training failed after these reports; empty if it did not.
        length: The steps of the whole training, of which the last report may be an early one.
    """

    reports: tuple[Report, ...]
    problem: str = ""
    length: int = 1

    @property
    def is_whole(self) -> bool:
        """True if the training was seen to its end, whether it finished or failed."""
        return bool(self.problem) or (bool(self.reports) and self.reports[-1].finished)


def objective_for(direction: Direction) -> "Objective":
    """Return the objective by which a simulated search judges a table's values, which are reported under its metric."""
    metric = names.VALIDATION_ACCURACY if direction == "maximize" else names.VALIDATION_LOSS
    from metaloom.search_spaces.sections.settings import Objective

    return Objective.model_validate({"metric": metric, "direction": direction})


def curve_of(
    direction: Direction,
    values: Sequence[float],
    *,
    seconds: Sequence[float] | None = None,
    steps: Sequence[int] | None = None,
    length: int | None = None,
) -> Curve:
    """Return the curve of some values.

    Args:
        values: Of the measure, one for each step, in order.
        seconds: From the beginning of the training to each value; None: one second a step.
        steps: Ascending, from 1; None: 1, 2, ...
        length: The steps of the whole training; None: as far as the values reach.
    """
    steps = steps or range(1, len(values) + 1)
    seconds = seconds or [float(step) for step in steps]
    length = length or steps[-1]
    metric = objective_for(direction).metric
    reports = tuple(
        Report(
            step=int(step),
            metrics={metric: float(value), names.SECONDS: float(spent)},
            interval=(float(value), float(value)),
            scores=(),
            episodes=0,
            seconds=float(spent),
            finished=step >= length,
        )
        for step, value, spent in zip(steps, values, seconds, strict=True)
    )
    return Curve(reports, length=length)


class ResultTable(ABC):
    """A table of results. Reading it is pure: equal arguments give equal curves.

    Attributes:
        name: As the user calls it.
        measure: What its values are, in its own words.
        objective: The metric of the curves' reports by which a search judges, and its direction.
        domains: Every knob that could be asked for, by its name.
        configurations: The values of the knobs of each configuration, an option of a choice by its label. A
            configuration that stands here twice was trained as two suggestions of a search.
        once: Whether a search may take each configuration once only: a list of what somebody has tried, not a whole
            grid.
        has_seconds: Whether ``seconds`` were measured; else they count steps.
        has_scores: Whether reports have the scores of the same episodes, which the scheduler ``paired`` compares.
    """

    name: str
    measure: str
    objective: "Objective"
    domains: Mapping[str, Domain]
    configurations: Sequence[Mapping[str, Value]]
    once: bool = False
    has_seconds: bool = True
    has_scores: bool = False

    def define(self, suggest: Suggest) -> "Resolved":
        """Ask for the value of each knob, in order; by default all of them."""
        from metaloom.search_spaces.resolve import Resolved

        kinds = {name: type_of(domain) for name, domain in self.domains.items()}
        knobs = {name: kinds[name](suggest.value(name, domain)) for name, domain in self.domains.items()}
        return Resolved({}, {}, {}, {}, {}, knobs)

    @abstractmethod
    def curve(self, configuration: int, *, run: int, seed: int) -> Curve:
        """Return what training a configuration has shown.

        Args:
            configuration: Its place in ``configurations``.
            run: How often it was trained before in this search. A table with several recorded runs gives another one.
            seed: The search's, from which a table with several recorded runs draws the first.
        """

    @abstractmethod
    def value(self, configuration: int) -> float | None:
        """Return what a configuration is worth: the mean of its last values over its runs; None if it has none."""

    @cached_property
    def worth(self) -> Sequence[float | None]:
        """What each configuration is worth."""
        return [self.value(index) for index in range(len(self.configurations))]

    @cached_property
    def best(self) -> float:
        """The best worth of all configurations; NaN if none has one."""
        known = [one for one in self.worth if one is not None]
        if not known:
            return float("nan")
        return max(known) if self.objective.direction == "maximize" else min(known)

    def regret(self, value: float) -> float:
        """Return by how much a value is worse than the best."""
        return self.best - value if self.objective.direction == "maximize" else value - self.best


def type_of(domain: Domain) -> type[str] | type[int] | type[float]:
    """Return the type of a knob's values."""
    return str if isinstance(domain, Choice) else int if isinstance(domain, Int) else float
