"""What a chart is: traces and axes for Plotly, a table with the same numbers, and a note.

A module in ``charts/search``, ``charts/trial``, ``charts/knowledge`` or ``charts/episodes`` declares one as ``CHART``.
Colours of traces are from ``palette.py``; those of the background and of the text are set in the browser, by theme.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from metaloom.dashboards.analysis import Analysis
from metaloom.dashboards.store_reader import OpenStore

SIGNIFICANT_DIGITS = 6
# What Plotly reads as formatting, and our own charts may use; any other "<" is text.
FORMATTING = re.compile(r"<(?!/?(?:b|i|br|sub|sup|extra)>)")


@dataclass(frozen=True)
class ChartTable:
    """The numbers of a chart as text: a cell is a text or a number, None is an empty one."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class ChartChoice:
    """A control above a chart: the browser asks for the chart again with ``name=VALUE``."""

    name: str
    label: str
    options: Sequence[tuple[str, str]]  # value and label of each
    chosen: str


@dataclass(frozen=True)
class Chart:
    """A drawn chart.

    Attributes:
        title: Of the figure.
        data: Plotly's traces. User text may be in any string: it is escaped on its way out.
        layout: Plotly's layout, without the colours of background and text.
        table: The same in text.
        note: What the reader has to know, such as how points were reduced.
        choices: The controls above it.
        again_s: After how many seconds the browser asks again, because more is being worked out; None: it does not.
    """

    title: str
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    table: ChartTable
    note: str = ""
    choices: Sequence[ChartChoice] = ()
    again_s: float | None = None


@dataclass(frozen=True)
class ChartSource:
    """What a chart is drawn from.

    Attributes:
        store: The open store.
        name: The search.
        trial: The trial's number; None for a chart of the search.
        asked: The other values of the query string, such as the chosen knob.
        analysis: What the orchestrator works out; None where it lends nothing.
    """

    store: OpenStore
    name: str
    trial: int | None = None
    asked: Mapping[str, str] = field(default_factory=dict)
    analysis: Analysis | None = None


@dataclass(frozen=True)
class ChartKind:
    """A chart as its module declares it.

    Attributes:
        key: In addresses and templates; no two charts share one.
        title: Shown while it is loaded.
        draw: Returns the chart; None if there is nothing to draw.
        live: Whether it changes while the search runs.
        order: Of the charts of a page, the lower first.
        apart: Whether a process apart from the server draws it, because it imports torch or other large packages.
        needs: What it is drawn of, for a reader who sees none.
    """

    key: str
    title: str
    draw: Callable[[ChartSource], Chart | None]
    live: bool = True
    order: int = 100
    apart: bool = False
    needs: str = "There is nothing to draw."


def to_document(chart: Chart) -> dict[str, Any]:
    """Return a chart as JSON values: short numbers, null for those that are not finite, and escaped text."""
    return {
        "title": chart.title,
        "data": _plain(chart.data, text=_escaped),
        "layout": _plain(chart.layout, text=_escaped),
        "table": {"heads": list(chart.table.heads), "rows": _plain(chart.table.rows)},
        "note": chart.note,
        "again_s": chart.again_s,
        "choices": [
            {
                "name": one.name,
                "label": one.label,
                "options": [list(pair) for pair in one.options],
                "chosen": one.chosen,
            }
            for one in chart.choices
        ],
    }


def _escaped(text: str) -> str:
    """Return a text that Plotly shows as it is, apart from the formatting of our own charts."""
    return FORMATTING.sub("&lt;", text)


def _plain(value: Any, text: Callable[[str], str] = str) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item, text) for name, item in value.items()}
    if hasattr(value, "tolist"):  # an array of numpy, or one of its numbers
        return _plain(value.tolist(), text)
    if isinstance(value, Sequence | set | frozenset):
        return [_plain(item, text) for item in value]
    raise TypeError(f"a chart holds numbers, texts, lists and mappings, got {type(value).__name__}")
