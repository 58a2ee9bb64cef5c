"""Where the panels of facts stand in a chart: their axes, and the ranges that several charts share."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from metaloom.dashboards.knowledge_facts.panels import (
    Bars,
    CellGraph,
    Heat,
    Histogram,
    LearnedFacts,
    Lines,
    Panel,
    Plane,
    Rows,
)

BESIDE_GAP = 0.08  # between panels side by side, of the whole
GAP = 100  # pixels between panels below one another, for the name of an axis
MARGIN = 0.05  # of a range, on both sides
LEAST, OF_A_PANEL, OF_A_NAME = 260, 320, 24  # pixels of height


@dataclass(frozen=True)
class Frame:
    """The axes of one panel: the suffix of their names in Plotly (empty, 2, 3 ...), and their part of the chart."""

    suffix: str
    across: tuple[float, float]
    up: tuple[float, float]

    @property
    def place(self) -> dict[str, str]:
        """What puts a trace on these axes."""
        return {"xaxis": f"x{self.suffix}", "yaxis": f"y{self.suffix}"}


def frames(facts: LearnedFacts, panels: Sequence[Panel]) -> Iterator[Frame]:
    """Return the frames of the panels that are charts: side by side, or from above."""
    count = len(panels)
    gap = BESIDE_GAP if facts.beside else GAP / height_of(facts, panels)
    part = (1 - gap * (count - 1)) / count
    for index in range(count):
        start = index * (part + gap)
        own = (round(start, 4), round(start + part, 4))
        suffix = "" if index == 0 else str(index + 1)
        if facts.beside:
            yield Frame(suffix, own, (0.0, 1.0))
        else:
            yield Frame(suffix, (0.0, 1.0), (round(1 - own[1], 4), round(1 - own[0], 4)))


def height_of(facts: LearnedFacts, panels: Sequence[Panel]) -> int:
    """Return the height of a chart in pixels."""
    heights = [
        max(LEAST, 90 + OF_A_NAME * len(panel.names)) if isinstance(panel, Bars | Rows) else OF_A_PANEL
        for panel in panels
    ]
    return max(heights) if facts.beside else len(panels) * max(heights)


def symlog(value: float, linear: float) -> float:
    """Return a number on an axis that is linear below ``linear`` and logarithmic above."""
    return math.copysign(math.log10(1 + abs(value) / linear), value) if value else 0.0


def symlog_ticks(linear: float, largest: float) -> tuple[list[float], list[str]]:
    """Return the places and the texts of the ticks of such an axis, up to ``largest`` on both sides."""
    powers = range(math.ceil(math.log10(linear)), math.floor(math.log10(largest) + 1e-9) + 1)
    positive = [10.0**power for power in powers]
    values = [*(-one for one in reversed(positive)), 0.0, *positive]
    return [symlog(one, linear) for one in values], [f"{one:g}" for one in values]


def ranges(panels: Sequence[Panel]) -> tuple[list[float] | None, list[float] | None]:
    """Return the ranges of x and y that show the numbers of all these panels, None where Plotly chooses."""
    xs, ys = [], []
    for panel in panels:
        across, up = _numbers(panel)
        xs += across
        ys += up
    return _range(xs), _range(ys)


def _numbers(panel: Panel) -> tuple[list[float], list[float]]:
    """Return the numbers of a panel along both axes; none along an axis of names."""
    match panel:
        case Lines(curves=curves, marks=marks, linear=linear):
            xs = [value for curve in curves for value in curve.x] + [mark.x for mark in marks]
            ys = [value for curve in curves for value in curve.y] + [mark.y for mark in marks]
            bounds = [one for one in (panel.low, panel.high, panel.level) if one is not None]
            return [value if linear is None else symlog(value, linear) for value in xs], ys + bounds
        case Bars(values=values, lows=lows, highs=highs, lying=lying):
            sizes = [0.0, *values, *lows, *highs]
            return (sizes, []) if lying else ([], sizes)
        case Histogram(edges=edges, groups=groups):
            return list(edges), [0.0, *(count for _, counts in groups for count in counts)]
        case Plane(clouds=clouds):
            return [x for cloud in clouds for x in cloud.x], [y for cloud in clouds for y in cloud.y]
        case Rows(groups=groups, level=level, standing=standing):
            sizes = [value for _, rows in groups for row in rows for value in row]
            sizes += [] if level is None else [level]
            return ([], sizes) if standing else (sizes, [])
    return [], []


def _range(values: Sequence[float]) -> list[float] | None:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    margin = MARGIN * (high - low) or 0.5 * abs(high) or 0.5
    return [low - margin, high + margin]


def scale_of(panels: Sequence[Panel]) -> tuple[float, float] | None:
    """Return the least and the largest number of the matrices among the panels."""
    values = [panel.values[panel.values.isfinite()] for panel in panels if isinstance(panel, Heat)]
    values = [one for one in values if one.numel()]
    if not values:
        return None
    return min(float(one.min()) for one in values), max(float(one.max()) for one in values)


def titled(text: str, domain: tuple[float, float], anchor: str) -> dict[str, Any]:
    """Return an axis of Plotly with its title, its part of the chart, and the axis that it crosses."""
    return {
        "title": {"text": text, "font": {"size": 11}},
        "domain": list(domain),
        "anchor": anchor,
        "automargin": True,
        "showline": True,
    }


def is_chart(panel: Panel) -> bool:
    """Whether a panel is drawn by Plotly; tables and pictures are not."""
    return isinstance(panel, Lines | Bars | Histogram | Plane | Rows | Heat | CellGraph)
