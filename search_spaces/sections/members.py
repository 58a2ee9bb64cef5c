"""Sources that are made of other sources: lists of tasks sections, each parsed as one with its own place.

``tasks: {source: many, sources: [{source: glyphs}, {source: arrays, path: [a.npz, b.npz]}], weights: [2, 1]}``.
Where a text setting of an entry is a list, the entry stands for one data set for each of its texts.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from metaloom.learners.errors import shown
from metaloom.learners.fields import Field, fields_of
from metaloom.learners.modes import LEARN, SEARCH
from metaloom.search_spaces.knobs.declarations import parse_knob
from metaloom.search_spaces.reading.nodes import Fixed, Node, Place, Section, Several
from metaloom.search_spaces.sections.listed import SOURCE, entries, expanded, several_of
from metaloom.search_spaces.sections.tasks import EPISODES, settings_of

PLAIN = 1.0  # what stands for a weight that is a knob while the rest of the section is checked
Parse = Callable[[Any, Place], Node]
NOT_LEARNED = (
    "a weight chooses which episodes the outer loss is the mean of, so that a gradient of this loss would only move it "
    "to the easiest data set; fix it or search it, such as {search: {low: 0, high: 1}}"
)


def with_stand_ins(config: Any, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section whose members are mappings in lists, and whose weights are numbers: the rest is checked."""
    given = dict(raw)
    for name in config.members:
        if given.get(name) is not None:
            given[name] = [{SOURCE: one} if isinstance(one, str) else one for one in entries(given[name])]
    if config.weighed in given and isinstance(given[config.weighed], list):
        knobs = (one in (SEARCH, LEARN) or isinstance(one, Mapping) for one in given[config.weighed])
        numbers = zip(given[config.weighed], knobs, strict=True)
        given[config.weighed] = [PLAIN if is_knob else one for one, is_knob in numbers]
    return given


def with_members(config: Any, section: Section, raw: Mapping[str, Any], parse: Parse) -> Section:
    """Return a section whose lists of tasks sections, and of weights, are parsed into nodes; problems are noted."""
    place, fields = section.place, dict(section.fields)
    given = frozenset(one for one in config.shared if raw.get(one) is not None)
    for name in config.members:
        if raw.get(name) is not None:
            nodes = (_entry(*one, given, parse) for one in _placed(raw, name, place))
            fields[name] = Several(place.at(name), tuple(nodes))
    weights, of_weight = raw.get(config.weighed), fields_of(config)[config.weighed].items if config.weighed else None
    if isinstance(weights, list) and of_weight is not None:
        at = place.at(config.weighed)
        each = (_weight(of_weight, one, at.option((*at.path, i), str(i))) for i, one in enumerate(weights))
        fields[config.weighed] = Several(at, tuple(each))
    return replace(section, fields=fields)


def _placed(raw: Mapping[str, Any], name: str, place: Place) -> list[tuple[Any, Place]]:
    at = place.at(name)
    if not isinstance(raw[name], list):
        return [(raw[name], at.option(at.path, "0"))]
    return [(one, at.option((*at.path, i), str(i))) for i, one in enumerate(raw[name])]


def _weight(field: Field, raw: Any, place: Place) -> Node:
    if raw == LEARN or (isinstance(raw, Mapping) and LEARN in raw and SEARCH not in raw):
        return place.wrong(NOT_LEARNED)
    return parse_knob(field, raw, PLAIN, place)


def _entry(raw: Any, place: Place, shared: frozenset[str], parse: Parse) -> Node:
    """Parse one entry, which has none of the ``shared`` settings.

    The data sets that it stands for have the same settings, but for the list that names them.
    """
    if not isinstance(raw, Mapping):
        return _without(parse(raw, place), shared) if isinstance(raw, str) else place.wrong(_no_section(raw))
    config = settings_of(str(raw.get(SOURCE)), raw.get(EPISODES))
    if getattr(config, "members", ()):
        return place.wrong(f"{raw[SOURCE]} within {raw[SOURCE]}; put its sources into this list", SOURCE)
    for twice in sorted(shared & set(raw)):
        place.wrong(f"given for all sources too, as tasks.{twice}; remove one of both", twice)
    try:
        name, sections = several_of(raw), expanded(raw)
    except ValueError as wrong:
        return place.wrong(str(wrong))
    nodes = [_without(parse(one, place), shared) for one in sections]
    if name is None or not isinstance(nodes[0], Section):
        return nodes[0]
    return replace(nodes[0], fields={**nodes[0].fields, name: Fixed(list(raw[name]))})


def _no_section(raw: Any) -> str:
    return f"got {shown(raw)}; give a tasks section"


def _without(node: Node, shared: frozenset[str]) -> Node:
    """Leave out the defaults of an entry's settings that are given for all: a resolved section reads back."""
    if not isinstance(node, Section):
        return node
    return replace(node, fields={name: one for name, one in node.fields.items() if name not in shared})
