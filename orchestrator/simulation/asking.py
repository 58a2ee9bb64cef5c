"""From what a command is given to a table and the strategies that are run on it."""

from collections.abc import Sequence
from pathlib import Path

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.simulation.comparing import Strategy, strategies_of, strategies_on
from metaloom.orchestrator.simulation.replaying import read_replayed
from metaloom.search_spaces.reading.document import read_value
from metaloom.workers.data.result_tables import ResultColumns, ResultTable, read_results
from metaloom.workers.data.result_tables.opening import open_table
from metaloom.workers.data.table_files import TABLES, is_table


def asked_of_search(
    name: str,
    *,
    store: str | Path,
    samplers: Sequence[str],
    schedulers: Sequence[str],
    trials: int | None,
    seeds: int,
    time_budget_s: float | None,
) -> tuple[ResultTable, list[Strategy]]:
    """Return what ``replay`` runs; raises BadInput. See ``strategies_of``."""
    replayed = read_replayed(name, store)
    return replayed.table, strategies_of(
        replayed, samplers=samplers, schedulers=schedulers, trials=trials, seeds=seeds, time_budget_s=time_budget_s
    )


def asked_of_table(
    table: str,
    *,
    objective: str | None,
    minimize: bool | None,
    knobs: Sequence[str],
    seconds: str | None,
    steps: str | None,
    samplers: Sequence[str],
    schedulers: Sequence[str],
    trials: int,
    seeds: Sequence[int],
    time_budget_s: float | None,
) -> tuple[ResultTable, list[Strategy]]:
    """Return what ``simulate`` runs.

    Args:
        table: A file, or the name of a table, ``FAMILY/NAME``, which says itself what it holds.
        objective: The column that is judged.
        minimize: Whether less of it is better.
        samplers: Each as YAML.
        schedulers: Likewise.

    Raises:
        BadInput: The table cannot be read, or a sampler or a scheduler does not fit it.
    """
    given = {"--objective": objective, "--knobs": knobs, "--seconds": seconds, "--step": steps}
    options = [option for option, value in given.items() if value]
    if Path(table).is_file() != is_table(Path(table)):
        endings = ", ".join(TABLES)
        raise BadInput(
            f"there is no file {table}"
            if is_table(Path(table))
            else f"{table} has not the ending of a table: {endings}"
        )
    if is_table(Path(table)):
        found: ResultTable = read_results(Path(table), _columns(table, objective, minimize, knobs, seconds, steps))
    elif options or minimize is not None:
        says = ", ".join([*options, *(["--minimize or --maximize"] if minimize is not None else [])])
        raise BadInput(f"{says}: of files alone, such as {table}.csv; a table FAMILY/NAME says itself what it holds")
    else:
        found = open_table(table)
    return found, strategies_on(
        found,
        samplers=[read_value(one) for one in samplers] or [None],
        schedulers=[read_value(one) for one in schedulers] or [None],
        trials=trials,
        seeds=seeds,
        time_budget_s=time_budget_s,
    )


def _columns(
    table: str,
    objective: str | None,
    minimize: bool | None,
    knobs: Sequence[str],
    seconds: str | None,
    steps: str | None,
) -> ResultColumns:
    """Return which columns of a file hold what; raises BadInput if it is not said what is judged."""
    if objective is None:
        raise BadInput(f"{table}: say which column is judged: give --objective")
    if minimize is None:
        raise BadInput(f"say whether less or more of {objective} is better: give --minimize or --maximize")
    return ResultColumns(
        objective=objective,
        direction="minimize" if minimize else "maximize",
        knobs=knobs,
        seconds=seconds,
        steps=steps,
    )
