"""Several strategies (a sampler with a scheduler) on one table, each run once a seed, and summed up together."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from metaloom.dashboards.simulated_rows import SimulationRow
from metaloom.orchestrator.simulation.candidates import Candidates
from metaloom.orchestrator.simulation.replaying import Replayed
from metaloom.orchestrator.simulation.running import Simulation, check_scheduler, simulate
from metaloom.orchestrator.simulation.settings import table_settings
from metaloom.orchestrator.simulation.summing import strategy_row
from metaloom.search_spaces.errors import ExperimentError, InputProblem
from metaloom.search_spaces.sections.settings import SearchSettings
from metaloom.search_spaces.sections.strategies import KIND
from metaloom.workers.data.result_tables import ResultTable

AS_LOGGED = "as logged"


@dataclass(frozen=True)
class Strategy:
    """How a search is done.

    Attributes:
        name: The sampler and the scheduler.
        seeds: One search each.
        warm_start: What is tried first.
        is_logged: It is the search as it was logged: one logged trial after another, each as far as it went.
    """

    name: str
    settings: SearchSettings
    seeds: Sequence[int]
    warm_start: Sequence[Mapping[str, Any]] = ()
    is_logged: bool = False

    def run(self, table: ResultTable, seed: int, candidates: Candidates, workers: int) -> Simulation:
        """Simulate the search of one seed."""
        settings = self.settings
        if self.is_logged:
            settings = settings.model_copy(update={"scheduler": {KIND: "none"}, "patience": None})
        found = simulate(
            table,
            settings,
            seed=seed,
            workers=1 if self.is_logged else workers,
            warm_start=self.warm_start,
            candidates=candidates,
        )
        return replace(found, unseen={}) if self.is_logged else found


Told = Callable[[Strategy, int, Simulation], None]


def strategies_on(
    table: ResultTable,
    *,
    samplers: Sequence[Any],
    schedulers: Sequence[Any],
    trials: int,
    seeds: Sequence[int],
    **others: Any,
) -> list[Strategy]:
    """Return every sampler with every scheduler, on a table.

    Args:
        samplers: Each a kind's name or a mapping with its settings.
        schedulers: Likewise.
        others: Further settings of the search section.

    Raises:
        ExperimentError: A sampler or a scheduler does not exist, or does not fit the table.
    """
    found = []
    for sampler, scheduler in itertools.product(samplers, schedulers):
        settings = table_settings(table, sampler=sampler, scheduler=scheduler, trials=trials, **others)
        check_scheduler(settings, table)
        found.append(Strategy(named(settings), settings, seeds))
    return _apart(found)


def strategies_of(
    replayed: Replayed,
    *,
    samplers: Sequence[str],
    schedulers: Sequence[str],
    trials: int | None,
    seeds: int,
    time_budget_s: float | None,
) -> list[Strategy]:
    """Return the search as it was logged, and every sampler with every scheduler in its place.

    Args:
        samplers: As for ``--set search.sampler=``; empty: the search's own.
        schedulers: Likewise.
        trials: At most so many; None: as many as the search has logged.
        seeds: How many, from the search's own on.
        time_budget_s: Of simulated time; None: no limit.

    Raises:
        ExperimentError: A sampler or a scheduler does not exist, or does not fit the experiment.
        SearchError: The logged curves cannot answer a scheduler.
    """
    table, first = replayed.table, replayed.seed
    own = {"time_budget_s": None, "trials": len(table.configurations)}
    as_it_was = replayed.experiment().search.model_copy(update=own)
    found = []
    for sampler, scheduler in itertools.product(samplers or [""], schedulers or [""]):
        given = {"sampler": sampler, "scheduler": scheduler, "trials": trials or len(table.configurations)}
        changes = [f"search.{name}={value}" for name, value in given.items() if value]
        try:
            settings = replayed.experiment(changes).search.model_copy(update={"time_budget_s": time_budget_s})
        except ExperimentError as error:
            raise ExperimentError([_as_option(one) for one in error.problems], error.source) from error
        check_scheduler(settings, table)
        found.append(Strategy(named(settings), settings, range(first, first + seeds), replayed.warm_start))
    logged = [{"origin": AS_LOGGED, "params": dict(one)} for one in table.configurations]
    return [Strategy(AS_LOGGED, as_it_was, [first], logged, is_logged=True), *_apart(found)]


def _as_option(problem: InputProblem) -> InputProblem:
    """Name the option of ``replay`` where a problem names the ``--set`` that it became."""
    return replace(problem, origin=re.sub(r"^--set search\.(\w+)=", r"--\1 ", problem.origin))


def compare(
    table: ResultTable,
    strategies: Sequence[Strategy],
    *,
    workers: int = 1,
    target: float | None = None,
    told: Told = lambda strategy, seed, found: None,
) -> SimulationRow:
    """Run every strategy once a seed, and sum the searches up.

    Args:
        workers: Trials at once; what was logged is replayed with one.
        target: A worth, to be reached; None: the table's best.
        told: Called after each search.
    """
    candidates, found = Candidates(table), list[dict[int, Simulation]]()
    for strategy in strategies:
        searches: dict[int, Simulation] = {}
        for seed in strategy.seeds:
            searches[seed] = strategy.run(table, seed, candidates, workers)
            told(strategy, seed, searches[seed])
        found.append(searches)
    aim = table.best if target is None else target
    until_s = max(one.seconds for searches in found for one in searches.values())
    return SimulationRow(
        table=table.name,
        measure=table.measure,
        direction=table.objective.direction,
        configurations=len(table.configurations),
        once=table.once,
        best=table.best,
        target=aim,
        unit="s" if table.has_seconds else "steps",
        workers=workers,
        strategies=tuple(
            strategy_row(one.name, one.settings.model_dump(mode="json"), table, searches, target=aim, until_s=until_s)
            for one, searches in zip(strategies, found, strict=True)
        ),
    )


def named(settings: SearchSettings) -> str:
    """Return the name of a strategy: the sampler, and the scheduler if there is one."""
    sampler, scheduler = str(settings.sampler[KIND]), str(settings.scheduler[KIND])
    return sampler if scheduler == "none" else f"{sampler} + {scheduler}"


def _apart(strategies: Sequence[Strategy]) -> list[Strategy]:
    """Number the strategies whose names are the same, because their settings differ."""
    names = [one.name for one in strategies]
    return [
        replace(one, name=f"{one.name} ({names[: place + 1].count(one.name)})") if names.count(one.name) > 1 else one
        for place, one in enumerate(strategies)
    ]
