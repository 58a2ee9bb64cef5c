"""Facts beside others of the same kind: the differences of two trials, and the numbers of one over its outer steps."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from metaloom.dashboards.knowledge_facts.panels import (
    Bars,
    Heat,
    Histogram,
    LearnedFacts,
    Line,
    Lines,
    Numbers,
    Panel,
    Rows,
)

MOST_CURVES = 60  # over the outer steps
MOST_POINTS = 12  # of a curve whose points are numbers with a name of their own


def difference(one: LearnedFacts, other: LearnedFacts) -> LearnedFacts | None:
    """Return ``other`` minus ``one`` where their numbers have the same names; None where none have."""
    pairs = zip(one.panels, other.panels, strict=False)
    panels = [found for pair in pairs if (found := _difference(*pair)) is not None]
    return LearnedFacts(one.name, "", tuple(panels), one.beside) if panels else None


def _difference(one: Panel, other: Panel) -> Panel | None:
    match one, other:
        case Lines(), Lines():
            curves = _curves(one, other)
            return (
                Lines(one.title, one.across, f"difference: {one.up}", curves, one.linear, level=0.0) if curves else None
            )
        case Bars(), Bars():
            values = dict(zip(other.names, other.values, strict=True))
            own = zip(one.names, one.values, strict=True)
            found = {name: values[name] - value for name, value in own if name in values}
            up = f"difference: {one.up}"
            names, numbers = tuple(found), tuple(found.values())
            return Bars(one.title, one.across, up, names, numbers, lying=one.lying) if found else None
        case Histogram(), Histogram() if one.edges == other.edges:
            counts = dict(other.groups)
            groups = tuple((name, _minus(counts[name], own)) for name, own in one.groups if name in counts)
            return Histogram(one.title, one.across, f"difference: {one.up}", one.edges, groups) if groups else None
        case Rows(), Rows():
            return _rows(one, other)
        case Heat(), Heat() if one.values.shape == other.values.shape and (one.xs, one.ys) == (other.xs, other.ys):
            apart, scale = other.values.double() - one.values.double(), f"difference: {one.scale or 'value'}"
            return replace(one, values=apart, scale=scale, texts=(), marks=())
    return None


def _curves(one: Lines, other: Lines) -> tuple[Line, ...]:
    """Return the differences of the curves of one name, at the places that both have."""
    theirs = {curve.name: dict(zip(curve.x, curve.y, strict=True)) for curve in other.curves}
    found = []
    for curve in one.curves:
        at = theirs.get(curve.name, {})
        pairs = [(x, at[x] - y) for x, y in zip(curve.x, curve.y, strict=True) if x in at]
        if len(pairs) == len(curve.x) or len(pairs) > 1:
            xs, ys = tuple(x for x, _ in pairs), tuple(y for _, y in pairs)
            found.append(Line(curve.name, xs, ys, curve.style, curve.group))
    return tuple(found)


def _rows(one: Rows, other: Rows) -> Rows | None:
    """Return the differences of the numbers in the rows of one name, where both have equally many."""
    groups = []
    for group, each in one.groups:
        theirs = {
            name: values
            for label, rows in other.groups
            if label == group
            for name, values in zip(other.names, rows, strict=True)
        }
        own = dict(zip(one.names, each, strict=True))
        rows = tuple(
            _minus(theirs[name], values) if len(theirs.get(name, ())) == len(values) else ()
            for name, values in own.items()
        )
        if any(rows):
            groups.append((group, rows))
    if not groups:
        return None
    across, up = (one.across, f"difference: {one.up}") if one.standing else (f"difference: {one.across}", one.up)
    return Rows(one.title, across, up, one.names, tuple(groups), 0.0, one.standing)


def _minus(other: Numbers, one: Numbers) -> Numbers:
    return tuple(theirs - own for theirs, own in zip(other, one, strict=True))


def named_numbers(panel: Panel) -> dict[str, float]:
    """Return the numbers of a panel that have a name of their own."""
    match panel:
        case Bars():
            return dict(zip(panel.names, panel.values, strict=True))
        case Rows() if not panel.standing:
            pairs = [
                (name, values)
                for group, each in panel.groups
                if group != "start"
                for name, values in zip(panel.names, each, strict=True)
            ]
            return _numbered(pairs)
        case Lines() if all(len(curve.x) <= MOST_POINTS for curve in panel.curves):
            return {
                f"{curve.name}, {panel.across} {x:g}": y
                for curve in panel.curves
                if curve.style == "points"
                for x, y in zip(curve.x, curve.y, strict=True)
            }
        case Heat() if panel.columns and panel.lines:
            rows = zip(panel.lines, panel.values.tolist(), strict=True)
            return {
                f"{line}: {name}": one for line, each in rows for name, one in zip(panel.columns, each, strict=True)
            }
    return {}


def _numbered(pairs: Sequence[tuple[str, Numbers]]) -> dict[str, float]:
    return {
        name if len(values) == 1 else f"{name} {number}": value
        for name, values in pairs
        for number, value in enumerate(values, 1)
    }


def over_steps(by_step: Mapping[int, LearnedFacts]) -> LearnedFacts | None:
    """Return the named numbers of facts over the outer steps; None with fewer than two steps or too many numbers."""
    if len(by_step) < 2:
        return None
    last = by_step[max(by_step)]
    panels = []
    for index, panel in enumerate(last.panels):
        values: dict[str, list[tuple[int, float]]] = {}
        for step, facts in sorted(by_step.items()):
            if index < len(facts.panels) and type(facts.panels[index]) is type(panel):
                for name, value in named_numbers(facts.panels[index]).items():
                    values.setdefault(name, []).append((step, value))
        if 0 < len(values) <= MOST_CURVES:
            panels.append(Lines(panel.title, "outer step", _measured(panel), tuple(_over(values))))
    return LearnedFacts(f"{last.name}-over-steps", "", tuple(panels)) if panels else None


def _over(values: Mapping[str, list[tuple[int, float]]]) -> list[Line]:
    return [
        Line(name, tuple(float(step) for step, _ in pairs), tuple(value for _, value in pairs), "points")
        for name, pairs in values.items()
    ]


def _measured(panel: Panel) -> str:
    """Return the name of the axis along which a panel's numbers lie."""
    match panel:
        case Rows(standing=False):
            return panel.across
        case Heat():
            return panel.scale
        case Lines() | Bars() | Rows():
            return panel.up
    return ""
