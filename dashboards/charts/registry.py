"""Finds the charts: every module in a folder of charts that declares ``CHART``. No list is kept by hand."""

import pkgutil
from functools import cache
from importlib import import_module

from metaloom.dashboards.charts.base import ChartKind
from metaloom.dashboards.episode_scan import QueryError
from metaloom.learners.errors import unknown

GROUPS = ("search", "trial", "knowledge", "episodes")
PACKAGE = "metaloom.dashboards.charts"


@cache
def charts_of(group: str) -> tuple[ChartKind, ...]:
    """Return the charts in a folder, by their order and then by their keys."""
    folder = import_module(f"{PACKAGE}.{group}")
    modules = (import_module(f"{folder.__name__}.{module.name}") for module in pkgutil.iter_modules(folder.__path__))
    kinds = [module.CHART for module in modules if hasattr(module, "CHART")]
    return tuple(sorted(kinds, key=lambda kind: (kind.order, kind.key)))


@cache
def charts() -> dict[str, ChartKind]:
    """Return all charts by key; raises ValueError if two share one."""
    found: dict[str, ChartKind] = {}
    for group in GROUPS:
        for kind in charts_of(group):
            if kind.key in found:
                raise ValueError(f"two charts have the key '{kind.key}': rename the one in charts/{group}")
            found[kind.key] = kind
    return found


def chart_kind(key: str) -> ChartKind:
    """Return the chart of this key; raises QueryError, with the nearest one, if there is none."""
    if key not in charts():
        raise QueryError(unknown("chart", key, charts()))
    return charts()[key]
