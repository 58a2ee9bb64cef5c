"""From what a command is given to a table and the strategies that are run on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.simulation.comparing import Strategy, strategies_of, strategies_on
from metaloom.orchestrator.simulation.replaying import read_replayed
from metaloom.search_spaces.reading.document import read_value
from metaloom.workers.data.result_tables import ResultColumns, ResultTable, read_results
from metaloom.workers.data.result_tables.opening import open_table
from metaloom.workers.data.table_files import TABLES, is_table


@dataclass(frozen=True)
class Asked:
    """How a table is searched.

    Attributes:
        samplers: Each as YAML; empty: the default.
        schedulers: Likewise.
        seeds: How many.
        time_budget_s: Of simulated time; None: no limit.
    """

    samplers: Sequence[str] = ()
    schedulers: Sequence[str] = ()
    seeds: int = 10
    time_budget_s: float | None = None


@dataclass(frozen=True)
class AskedColumns:
    """Which columns of a file hold what, as far as it is said.

    Attributes:
        objective: The column that is judged.
        minimize: Whether less of it is better.
        knobs: Empty: all other columns.
        seconds: The column of the time of a value.
        steps: The column of the step of a value.
    """

    objective: str | None = None
    minimize: bool | None = None
    knobs: Sequence[str] = ()
    seconds: str | None = None
    steps: str | None = None

    def options(self) -> list[str]:
        """Return the options that say something."""
        given = {"--objective": self.objective, "--knobs": self.knobs, "--seconds": self.seconds, "--step": self.steps}
        found = [option for option, value in given.items() if value]
        return found if self.minimize is None else [*found, "--minimize or --maximize"]

    def of(self, table: str) -> ResultColumns:
        """Return the columns of a file; raises BadInput if it is not said what is judged."""
        if self.objective is None:
            raise BadInput(f"{table}: say which column is judged: give --objective")
        if self.minimize is None:
            raise BadInput(f"say whether less or more of {self.objective} is better: give --minimize or --maximize")
        return ResultColumns(
            self.objective, "minimize" if self.minimize else "maximize", self.knobs, self.seconds, self.steps
        )


def asked_of_search(
    name: str, asked: Asked, *, store: str | Path, trials: int | None
) -> tuple[ResultTable, list[Strategy]]:
    """Return what ``replay`` runs; raises BadInput. See ``strategies_of``."""
    replayed = read_replayed(name, store)
    return replayed.table, strategies_of(
        replayed,
        samplers=asked.samplers,
        schedulers=asked.schedulers,
        trials=trials,
        seeds=asked.seeds,
        time_budget_s=asked.time_budget_s,
    )


def asked_of_table(
    table: str, columns: AskedColumns, asked: Asked, *, trials: int, first_seed: int
) -> tuple[ResultTable, list[Strategy]]:
    """Return what ``simulate`` runs.

    Args:
        table: A file, or the name of a table, ``FAMILY/NAME``, which says itself what it holds.
        columns: Of a file.
        asked: The strategies.
        trials: Of each search.
        first_seed: The others follow it.

    Raises:
        BadInput: The table cannot be read, or a sampler or a scheduler does not fit it.
    """
    if Path(table).is_file() != is_table(Path(table)):
        endings = ", ".join(TABLES)
        raise BadInput(
            f"there is no file {table}"
            if is_table(Path(table))
            else f"{table} has not the ending of a table: {endings}"
        )
    if is_table(Path(table)):
        found: ResultTable = read_results(Path(table), columns.of(table))
    elif options := columns.options():
        says = ", ".join(options)
        raise BadInput(f"{says}: of files alone, such as {table}.csv; a table FAMILY/NAME says itself what it holds")
    else:
        found = open_table(table)
    return found, strategies_on(
        found,
        samplers=[read_value(one) for one in asked.samplers] or [None],
        schedulers=[read_value(one) for one in asked.schedulers] or [None],
        trials=trials,
        seeds=range(first_seed, first_seed + asked.seeds),
        time_budget_s=asked.time_budget_s,
    )
