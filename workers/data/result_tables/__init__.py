"""Tables of results: what training each of many configurations has shown, so that a search runs without training."""

from metaloom.workers.data.result_tables.base import Curve, ResultTable, curve_of, objective_for
from metaloom.workers.data.result_tables.files import ResultColumns, read_results
from metaloom.workers.data.result_tables.logged import LoggedTable
from metaloom.workers.data.result_tables.rows import RowTable, domain_of

__all__ = [
    "Curve",
    "LoggedTable",
    "ResultColumns",
    "ResultTable",
    "RowTable",
    "curve_of",
    "domain_of",
    "objective_for",
    "read_results",
]
