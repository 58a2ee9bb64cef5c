"""Where a stage starts from: ``learner.initialization: {from: STAGE}`` takes the network of an earlier stage.

``from`` is written as ``bundle: stage:NAME``, which becomes the folder of the stage's bundle when a trial runs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from metaloom.learners.errors import shown, unknown
from metaloom.learners.fields import fields_of
from metaloom.learners.knowledge.initialization import INITIALIZATIONS, STAGE, stages_of
from metaloom.learners.modes import LEARN, SEARCH
from metaloom.search_spaces.knobs.components import Catalogue, expand, parse_component, parse_settings
from metaloom.search_spaces.reading.labels import members
from metaloom.search_spaces.reading.nodes import Alternatives, Fixed, Node, Place, Section, walk_nodes

INITIALIZATION = "initialization"  # the slot
FROM, BUNDLE, KIND = "from", "bundle", "kind"
PRETRAINED, FINE_TUNED = "pretrained", "fine_tuned"


def parse_initialization(catalogue: Catalogue, raw: Any, place: Place, earlier: Sequence[str]) -> Node:
    """Parse what fills the slot ``initialization``.

    Args:
        catalogue: The kinds; its recipe is the method's.
        earlier: The names of the stages before this one; empty where there are none.
    """

    def parse(member: Any, at: Place) -> Node:
        return parse_initialization(catalogue, member, at, earlier)

    raw = _with_kinds(raw, _kind_of_stage(catalogue))
    if (alternatives := expand(raw, catalogue.key, place, parse)) is not None:
        return alternatives
    if not isinstance(raw, Mapping) or FROM not in raw:
        node = parse_component(catalogue, raw, place)
        for wrong in set(stages_in(node)) - set(earlier):
            place.wrong(_unknown(wrong, earlier), BUNDLE)
        return node
    kinds = [kind for kind, config in catalogue.configs.items() if BUNDLE in fields_of(config)]
    kind = raw[KIND]
    if kind not in kinds:
        return place.wrong(f"{shown(kind)} starts from no stage; allowed with from: {', '.join(kinds)}", KIND)
    if BUNDLE in raw:
        return place.wrong("given beside from: a network has one origin; remove one of both", BUNDLE)
    settings = {name: value for name, value in raw.items() if name not in (FROM, KIND)}
    given = {SEARCH: list(earlier)} if raw[FROM] == SEARCH and len(earlier) > 1 else raw[FROM]
    if not _names(given, earlier, place.at(FROM)):
        return Fixed(None)
    section = parse_settings(catalogue, kind, {**settings, BUNDLE: given}, {}, place, {BUNDLE: FROM})
    return replace(section, fields={**section.fields, BUNDLE: _marked(section.fields[BUNDLE])})


def _kind_of_stage(catalogue: Catalogue) -> str:
    """Return the kind of a start from a stage that names none: the method's start is learned, or stays."""
    own = catalogue.recipe.get(KIND, catalogue.fixed)
    return FINE_TUNED if own in INITIALIZATIONS and INITIALIZATIONS[own].learns else PRETRAINED


def _with_kinds(raw: Any, kind: str) -> Any:
    """Name the kind of each member that only says which stage it starts from."""
    if members(raw) is not None and isinstance(raw[SEARCH], Mapping):
        inner = raw[SEARCH]
        return {SEARCH: {**inner, "options": [_with_kinds(one, kind) for one in inner["options"]]}}
    if members(raw) is not None:
        return {SEARCH: [_with_kinds(one, kind) for one in raw[SEARCH]]}
    if isinstance(raw, Mapping) and set(raw) == {LEARN} and isinstance(raw[LEARN], Mapping) and FROM in raw[LEARN]:
        return {KIND: FINE_TUNED, **raw[LEARN]}
    return {KIND: kind, **raw} if isinstance(raw, Mapping) and FROM in raw else raw


def _names(given: Any, earlier: Sequence[str], place: Place) -> bool:
    """Note what is no earlier stage; return whether all are."""
    found = members(given)
    listed = [one for one, _ in found] if found is not None else [given]
    names = [name for one in listed for name in (one if isinstance(one, list) else [one])]
    wrong = [name for name in names if not isinstance(name, str) or name not in earlier]
    for name in wrong:
        place.wrong(_unknown(name, earlier))
    return not wrong


def _unknown(name: Any, earlier: Sequence[str]) -> str:
    if not earlier:
        return f"got {shown(name)}, and there is no earlier stage; give stages, or the folder of a bundle as bundle"
    return unknown("earlier stage", name, earlier)


def _marked(node: Node) -> Node:
    """Mark the names of stages, so that they are no folders; the labels of a choice stay plain."""
    if isinstance(node, Alternatives):
        return replace(node, options={label: _marked(option) for label, option in node.options.items()})
    if isinstance(node, Fixed) and isinstance(node.value, list | tuple):
        return Fixed([f"{STAGE}{name}" for name in node.value])
    return Fixed(f"{STAGE}{node.value}") if isinstance(node, Fixed) else node


def stages_in(node: Node) -> Iterator[str]:
    """Yield the name of each stage that a parsed initialization may start from."""
    for one in walk_nodes(node):
        if isinstance(one, Section) and BUNDLE in one.fields:
            for fixed in walk_nodes(one.fields[BUNDLE]):
                yield from stages_of(fixed.value) if isinstance(fixed, Fixed) else ()


def needed_stages(stages: Sequence[Mapping[str, Any]], learner: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the stages that a resolved learner starts from, and those that these start from, in their order."""
    wanted = set(starts_of_section(learner))
    for stage in reversed(stages):
        if stage["name"] in wanted:
            wanted |= set(starts_of_section(stage["learner"]))
    yield from (stage for stage in stages if stage["name"] in wanted)


def starts_of_section(learner: Mapping[str, Any]) -> list[str]:
    """Return the names of the stages that a resolved learner section starts from."""
    return list(dict.fromkeys(stages_of((learner.get(INITIALIZATION) or {}).get(BUNDLE))))


def as_given(learner: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resolved learner section with the stages that it starts from as an experiment has them."""
    start = dict(learner.get(INITIALIZATION) or {})
    if not (found := stages_of(start.get(BUNDLE))):
        return dict(learner)
    given = found if isinstance(start.pop(BUNDLE), list | tuple) else found[0]
    return {**learner, INITIALIZATION: {**start, FROM: given}}


def with_starts(learner: Mapping[str, Any], other: Mapping[str, str]) -> dict[str, Any]:
    """Return a resolved learner section with other names for the stages that it starts from."""
    start = learner.get(INITIALIZATION) or {}
    given = start.get(BUNDLE)
    if not stages_of(given):
        return dict(learner)
    found = [f"{STAGE}{other[name]}" for name in stages_of(given)]
    return {**learner, INITIALIZATION: {**start, BUNDLE: found if isinstance(given, list | tuple) else found[0]}}
