"""The search section of a simulated search, checked against the table's knobs as an experiment's is."""

from typing import Any

import pydantic

from metaloom.learners.domains import Choice, Real
from metaloom.search_spaces.errors import ExperimentError, Problems, validation_problems
from metaloom.search_spaces.reading.nodes import Place
from metaloom.search_spaces.sections.settings import SearchSettings
from metaloom.search_spaces.sections.strategies import (
    KIND,
    parse_strategy,
    sampler_catalogue,
    samplers,
    scheduler_catalogue,
    schedulers,
)
from metaloom.workers.data.result_tables import ResultTable

SECTION = "search"


def table_settings(
    table: ResultTable, *, sampler: Any = None, scheduler: Any = None, trials: int, **others: Any
) -> SearchSettings:
    """Return the settings of a search on a table.

    Args:
        sampler: A kind's name, or a mapping with its settings; None: the default.
        scheduler: Likewise.
        others: Further settings of the search section, such as ``patience``.

    Raises:
        ExperimentError: With every problem, each with what is allowed.
    """
    problems = Problems()
    given = {"trials": trials, **others}
    for name, raw, catalogue in (
        ("sampler", sampler, sampler_catalogue()),
        ("scheduler", scheduler, scheduler_catalogue()),
    ):
        place = Place((SECTION, name), f"{SECTION}.{name}", problems)
        given[name] = parse_strategy(catalogue, catalogue.fixed if raw is None else raw, place)
    _check_sampler(table, given["sampler"], problems)
    least = schedulers()[given["scheduler"][KIND]].least_trials
    if trials < least:
        kind = given["scheduler"][KIND]
        problems.add((SECTION, "scheduler"), f"{kind} needs at least {least} trials, got {trials}")
    try:
        settings = SearchSettings.model_validate({**given, "objectives": [table.objective.model_dump()]})
    except pydantic.ValidationError as error:
        validation_problems(error, given, SearchSettings, problems)
    if problems.found:
        raise ExperimentError(problems.found, table.name)
    return settings


def _check_sampler(table: ResultTable, sampler: dict[str, Any], problems: Problems) -> None:
    """Note what a sampler needs of the knobs, which this table does not have."""
    kind, path, domains = str(sampler[KIND]), (SECTION, "sampler"), table.domains
    needs = samplers()[kind]
    endless = [name for name, one in domains.items() if isinstance(one, Real) and one.step is None]
    if needs.finite and endless:
        problems.add(path, f"a {kind} cannot hold every value of a continuous knob ({', '.join(endless[:3])})")
    if needs.needs_number and all(isinstance(one, Choice) for one in domains.values()):
        problems.add(path, f"{kind} adapts numbers, and {table.name} has options only; use tpe")
