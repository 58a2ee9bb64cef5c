"""A search that has ended as a table of results: its trials are the configurations, what they logged their curves."""

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from metaloom.learners.errors import BadInput
from metaloom.search_spaces.knobs.sampling import Domain, Suggest, Value
from metaloom.workers.data.result_tables.base import Curve, ResultTable
from metaloom.workers.records import names

if TYPE_CHECKING:  # the schema's pydantic is absent where a bundle is served
    from metaloom.search_spaces.experiment import Experiment
    from metaloom.search_spaces.resolve import Resolved
    from metaloom.workers.records.search import SearchRecord
    from metaloom.workers.records.trial_record import TrialRecord

ENDED = (names.FINISHED, names.FAILED)


@dataclass(frozen=True)
class _Suggestion:
    """What the sampler suggested once: its first trial, and the repeats of it."""

    trials: "Sequence[TrialRecord]"

    @property
    def params(self) -> Mapping[str, Value]:
        return self.trials[0].params


class LoggedTable(ResultTable):
    """The table of a search that has ended.

    A configuration is one suggestion of the search, so a replay may take each once. Its runs are its first trial and
    the repeats of it. A trial that a scheduler or the time budget has stopped shows its curve up to that report.

    Args:
        search: The search's state.
        define: Asks for its knobs, as its experiment does.
        domains: Every knob that could be asked for.

    Raises:
        BadInput: It has not ended, no trial has a value, or its trials changed their knobs while they were trained.
    """

    once = True

    def __init__(
        self,
        name: str,
        search: "SearchRecord",
        define: "Callable[[Suggest], Resolved]",
        domains: Mapping[str, Domain],
    ) -> None:
        from metaloom.search_spaces.sections.strategies import KIND, schedulers
        from metaloom.workers.records.configurations import suggested

        self.name, self._define, self.domains = name, define, domains
        settings = search.settings
        if settings is None or search.state not in ENDED:
            raise BadInput(f"search '{name}' is {search.state}; let it end first: metaloom resume {name}")
        if schedulers()[kind := str(settings.scheduler[KIND])].copies_state:
            raise BadInput(
                f"search '{name}' has the scheduler {kind}: its trials changed knobs while they were trained"
            )
        self.objective, self.measure = settings.objectives[0], settings.objectives[0].metric
        repeats: dict[int, list[TrialRecord]] = {}
        for trial in search.trials.values():
            if trial.repeat_of is not None:
                repeats.setdefault(trial.repeat_of, []).append(trial)
        self._suggestions = [_Suggestion([one, *repeats.get(one.number, [])]) for one in suggested(search)]
        self.configurations = [one.params for one in self._suggestions]
        self.has_scores = any(report.scores for trial in search.trials.values() for report in trial.reports)
        self._constraints = settings.constraints
        if all(one is None for one in self.worth):
            keeps = " and keeps the constraints" if settings.constraints else ""
            raise BadInput(f"no trial of search '{name}' has a value{keeps}: there is nothing to replay")

    def define(self, suggest: Suggest) -> "Resolved":
        """Ask for each knob that the experiment searches under the choices made so far."""
        return self._define(suggest)

    @classmethod
    def of(cls, name: str, search: "SearchRecord", experiment: "Experiment") -> "LoggedTable":
        """Return the table of a search with its experiment; raises BadInput."""
        from metaloom.search_spaces.resolve import resolve, searched_knobs

        return cls(name, search, functools.partial(resolve, experiment), searched_knobs(experiment))

    def number(self, configuration: int) -> int:
        """Return the number of a suggestion's first trial in the search."""
        return self._suggestions[configuration].trials[0].number

    def curve(self, configuration: int, *, run: int, seed: int) -> Curve:
        """Return what the ``run``-th trial of a suggestion has logged; nothing, if it was not trained so often."""
        trials = self._suggestions[configuration].trials
        first = trials[0]
        length = int(first.config.outer.get("steps", first.step)) if first.config else first.step
        if run >= len(trials):
            return Curve((), length=length)
        trial = trials[run]
        problem = trial.reason or "failed" if trial.state == names.FAILED else ""
        return Curve(tuple(trial.reports), problem, max(length, trial.step))

    def value(self, configuration: int) -> float | None:
        """Return the mean of what its trials reported last.

        None where all failed, none reported, or the means break a constraint of the search.
        """
        trials = [one for one in self._suggestions[configuration].trials if one.state != names.FAILED]
        rows = [
            one.last.metrics for one in trials if one.last is not None and self.objective.metric in one.last.metrics
        ]
        if not rows:
            return None
        means = {
            name: statistics.fmean(row[name] for row in rows) for name in rows[0] if all(name in row for row in rows)
        }
        if any(one.violation(means) > 0 for one in self._constraints):
            return None
        return means[self.objective.metric]

    @cached_property
    def best(self) -> float:
        """The best worth of what was trained to its end, which ``metaloom show`` ranks first; else of all."""
        whole = [one.trials[0].state == names.FINISHED for one in self._suggestions]
        known = [one for one in self.worth if one is not None]
        finished = [one for one, ended in zip(self.worth, whole, strict=True) if ended and one is not None]
        return (max if self.objective.direction == "maximize" else min)(finished or known)

    def regret(self, value: float) -> float:
        """Return by how much a value is worse than the best; 0 for that of a curve that was cut at a better one."""
        return max(0.0, super().regret(value))
