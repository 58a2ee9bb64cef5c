"""The searches that the solver ``search_settings`` asks for, on tables that are opened by their names."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from metaloom.learners.solvers.search_settings import SIMULATIONS, TABLES, SettingsOfSearchesConfig, Simulated
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.inbox import ORIGIN
from metaloom.orchestrator.simulation.candidates import Candidates
from metaloom.orchestrator.simulation.running import COPIES, Simulation, check_scheduler, simulate
from metaloom.orchestrator.simulation.settings import table_settings
from metaloom.search_spaces.errors import ExperimentError, InputProblem, Problems
from metaloom.search_spaces.knobs.sampling import Value
from metaloom.search_spaces.reading.nodes import Place
from metaloom.search_spaces.sections.strategies import (
    KIND,
    parse_strategy,
    sampler_catalogue,
    scheduler_catalogue,
    schedulers,
)
from metaloom.workers.data.result_tables import ResultTable
from metaloom.workers.data.result_tables.opening import open_table
from metaloom.workers.data.result_tables.portfolio import scale_of

Starts = Sequence[Mapping[str, Value]]


class TableSearches(Simulated):
    """Simulates a search on the table that a task names."""

    def check(self, sampler: Mapping[str, Any], scheduler: Mapping[str, Any]) -> None:
        """Refuse a sampler or scheduler that does not exist, or has no such setting; raises ExperimentError."""
        problems = Problems()
        for name, raw, catalogue in (
            ("sampler", sampler, sampler_catalogue()),
            ("scheduler", scheduler, scheduler_catalogue()),
        ):
            place = Place(("learner", "prediction", name), f"learner.prediction.{name}", problems)
            parse_strategy(catalogue, dict(raw), place)
        kind = str(scheduler.get(KIND))
        if kind in schedulers() and schedulers()[kind].copies_state:
            problems.add(("learner", "prediction", "scheduler"), f"{kind} {COPIES}")
        if problems.found:
            raise ExperimentError(problems.found)

    def check_task(self, task: Mapping[str, Any], settings: SettingsOfSearchesConfig) -> None:
        """Refuse a sampler or scheduler that the task's table cannot take; raises BadInput."""
        table = open_table(str(task["table"]))
        sampler, scheduler = settings.section("sampler"), settings.section("scheduler")
        try:
            check_scheduler(
                table_settings(table, sampler=sampler, scheduler=scheduler, trials=int(task["budget"])), table
            )
        except ExperimentError as error:
            raise ExperimentError([_of_prediction(one, table.name) for one in error.problems], table.name) from error
        except SearchError as error:
            raise SearchError(f"learner.prediction.{str(error).removeprefix('search.')}") from error

    def regrets(self, task: Mapping[str, Any], settings: SettingsOfSearchesConfig, seed: int) -> list[float]:
        """Return the regret of the best configuration after each trial of the task's budget."""
        table = open_table(str(task["table"]))
        found = simulated(
            table,
            sampler=settings.section("sampler"),
            scheduler=settings.section("scheduler"),
            starts=task["starts"][: settings.portfolio],
            trials=int(task["budget"]),
            workers=int(task["workers"]),
            seed=seed,
        )
        return regrets(table, found)


def _of_prediction(problem: InputProblem, table: str) -> InputProblem:
    """Name the learner's setting in place of the search section's, and the table."""
    return replace(problem, path=("learner", "prediction", *problem.path[1:]), message=f"{table}: {problem.message}")


def simulated(
    table: ResultTable,
    *,
    sampler: str | Mapping[str, Any],
    scheduler: str | Mapping[str, Any] = "none",
    starts: Starts = (),
    trials: int,
    workers: int = 1,
    seed: int,
) -> Simulation:
    """Simulate one search on a table.

    Args:
        sampler: A kind's name, or a mapping with its settings.
        scheduler: Likewise.
        starts: Configurations that are tried first.
        trials: How many, those included.
        workers: Trials at once.
        seed: Of the search.

    Raises:
        ExperimentError: The sampler or the scheduler does not fit the table.
    """
    settings = table_settings(table, sampler=sampler, scheduler=scheduler, trials=trials)
    first = [{"origin": f"{ORIGIN}:{place}", "params": dict(one)} for place, one in enumerate(starts)]
    return simulate(table, settings, seed=seed, workers=workers, warm_start=first, candidates=_candidates(table))


def regrets(table: ResultTable, found: Simulation) -> list[float]:
    """Return the regret after each trial, by the regret of the table's median configuration.

    Before the first trial with a value it is that of the worst configuration.
    """
    worst = max((table.regret(one) for one in table.worth if one is not None), default=float("nan"))
    scale = scale_of(table)
    return [(worst if ended.worth is None else table.regret(ended.worth)) / scale for ended in found.ends]


@lru_cache(32)
def _candidates(table: ResultTable) -> Candidates:
    return Candidates(table)


SIMULATIONS.add(TABLES, TableSearches())
