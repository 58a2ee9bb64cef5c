"""Opens a table of results by its name: ``FAMILY/NAME``, such as ``hpobench/car``."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

from metaloom.learners.errors import unknown
from metaloom.learners.plugins import import_all
from metaloom.learners.registry import Registry
from metaloom.workers.data.base import DataError
from metaloom.workers.data.result_tables.base import ResultTable

KEPT_OPEN = 32  # tables that a process keeps in memory


@dataclass(frozen=True)
class TableReader:
    """How the tables of one family are read.

    Attributes:
        family: The first part of their names.
        read: From a family and a name to the table; raises DataError.
        names: The tables that there are, some of them where there is no end; raises DataError if they are not here.
        origin: Where they come from, in words.
    """

    family: str
    read: Callable[[str, str], ResultTable]
    names: Callable[[str], list[str]]
    origin: str


READERS: Registry[TableReader] = Registry("family of tables")


def readers() -> Registry[TableReader]:
    """Return the readers of all families; each file of this folder registers its own."""
    import_all(__package__)
    return READERS


@lru_cache(KEPT_OPEN)
def open_table(name: str) -> ResultTable:
    """Open a table; it is read once in a process.

    Raises:
        DataError: There is no such table, or the package that has it is not installed.
    """
    family, _, rest = name.partition("/")
    found = readers().get(family)
    if found is None or not rest:
        known = ", ".join(f"{one}/..." for one in readers())
        near = unknown("family of tables", family, readers()) if found is None else "give FAMILY/NAME"
        raise DataError(f"'{name}' names no table of results: {near} (tables: {known})")
    return found.read(family, rest)


def needed_package(module: str, package: str, extra: str) -> Any:
    """Import a package that reading needs; raises DataError that says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(
            f"these tables are in the package {package}, which is not installed; "
            f"pip install '{package}', or metaloom[{extra}]"
        ) from error


def table_named(family: str, name: str, names: Iterable[str]) -> None:
    """Refuse a name that a family does not have; raises DataError with the nearest."""
    if name not in set(names):
        raise DataError(f"'{family}/{name}': {unknown('table', name, sorted(names))}")
