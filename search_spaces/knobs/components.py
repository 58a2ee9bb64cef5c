"""Components: what fills a slot, a task source, an estimator; each a kind with its own settings.

A component is given as its kind's name, as a mapping of settings (with the key ``kind`` where it is not the default's),
as ``learn``, or as ``{search: [...]}`` over several of these.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from metaloom.learners.domains import Learned
from metaloom.learners.errors import BadInput, shown, unknown
from metaloom.learners.fields import MISSING, fields_of
from metaloom.learners.modes import LEARN, SEARCH
from metaloom.learners.plugins import unknown_or_absent
from metaloom.search_spaces.errors import Path
from metaloom.search_spaces.knobs.declarations import as_written, given_default, parse_knob
from metaloom.search_spaces.knobs.sampling import CORNERS, resolve_node
from metaloom.search_spaces.reading import nodes as tree
from metaloom.search_spaces.reading.labels import label_of, labels_of, members, note_repeated
from metaloom.search_spaces.reading.nodes import Alternatives, Fixed, Node, Place, Section

FIELD_AND_ITEM = re.compile(r"(\w+)(?:\[(\d+)\])?:?")


@dataclass(frozen=True)
class Catalogue:
    """The kinds that may stand in one place.

    Attributes:
        noun: What they are called in messages.
        configs: Kind to its configuration's dataclass.
        fixed: The default kind; None if a kind must be named.
        learned: The kind that ``learn`` means; None if there is none.
        key: The key that names the kind; empty for a section of one kind.
        recipe: The method's own settings for this place.
        also: Further allowed keys, for the nearest spelling of a wrong one.
        combined: Whether several may fill the place together, given as a list.
        defaults: By kind, defaults other than those of its configuration.
    """

    noun: str
    configs: Mapping[str, type]
    fixed: str | None = None
    learned: str | None = None
    key: str = "kind"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    combined: bool = False
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def expand(raw: Any, key: str, place: Place, parse: Callable[[Any, Place], Node]) -> Alternatives | None:
    """Parse ``{search: [...]}``, or a mapping whose ``key`` is searched, into alternatives; None if it is neither."""
    found = members(raw)
    settings = raw.get(SEARCH) if isinstance(raw, Mapping) else None
    if found is None and isinstance(raw, Mapping) and (named := members(raw.get(key))) is not None:
        rest = {name: value for name, value in raw.items() if name != key}
        found = [({key: kind, **rest} if isinstance(kind, str) else kind, ()) for kind, _ in named]
        settings = raw[key][SEARCH]
    if found is None:
        return None
    if not found:
        place.wrong("a search needs at least one option")
        return Alternatives(place.name, {"none": Fixed(None)}, "none")
    raws = [{key: member} if isinstance(member, str) and member != LEARN else member for member, _ in found]
    labels, before = labels_of(raws, key), len(place.problems)
    options = {
        label: parse(member, place.option((*place.path, *path), label))
        for label, member, (_, path) in zip(labels, raws, found, strict=True)
    }
    nodes = tuple(options.values()) if len(place.problems) == before else ()
    note_repeated(raws, labels, place.within(*found[0][1][:-1]), nodes)
    default = labels[0]
    if isinstance(settings, Mapping) and "default" in settings:
        default = given_default(settings["default"], raws, labels, place, key)
    return Alternatives(place.name, options, default)


def parse_component(catalogue: Catalogue, raw: Any, place: Place) -> Node:
    """Parse the component of a slot, over the recipe's settings; problems are noted."""

    def parse(member: Any, at: Place) -> Node:
        return parse_component(catalogue, member, at)

    if (alternatives := expand(raw, catalogue.key, place, parse)) is not None:
        return alternatives
    if isinstance(raw, list) and all(isinstance(member, str | Mapping) for member in raw):
        return _several(catalogue, raw, place)
    settings = _settings(catalogue, raw, place)
    if settings is None:
        return Fixed(None)
    default = catalogue.recipe.get(catalogue.key, catalogue.fixed)
    kind = settings.pop(catalogue.key, default)
    if kind is None:
        allowed = ", ".join(catalogue.configs)
        return place.wrong(f"not given; name the {catalogue.noun} (allowed: {allowed})", catalogue.key)
    if not isinstance(kind, str) or kind not in catalogue.configs:
        at = [catalogue.key] if isinstance(raw, Mapping) and catalogue.key in raw else []
        return place.wrong(unknown_or_absent(catalogue.noun, kind, catalogue.configs), *at)
    base = catalogue.recipe if kind == default else {}
    return parse_settings(catalogue, kind, settings, base, place)


def _several(catalogue: Catalogue, raw: list[Any], place: Place) -> Node:
    if not raw:
        return place.wrong(f"got an empty list; name a {catalogue.noun}, or leave it out")
    if not catalogue.combined:
        kinds = " and ".join(label_of(member, catalogue.key) for member in raw)
        return place.wrong(f"takes one {catalogue.noun}, got the list of {kinds}; keep one, without the brackets")
    at = [place.option((*place.path, index), str(index)) for index in range(len(raw))]
    members = [parse_component(catalogue, member, one) for member, one in zip(raw, at, strict=True)]
    return tree.Several(place, tuple(members))


def _settings(catalogue: Catalogue, raw: Any, place: Place) -> dict[str, Any] | None:
    """Write any shorthand as a mapping of settings; None if it is none, which is noted."""
    if raw is MISSING:
        return {}
    if raw == LEARN or (isinstance(raw, Mapping) and set(raw) == {LEARN}):
        if catalogue.learned is None:
            place.wrong(_why_not_learned(catalogue))
            return None
        settings = raw[LEARN] if isinstance(raw, Mapping) else {}
        if not isinstance(settings, Mapping | None):
            advice = f"give a mapping of the {catalogue.noun}'s settings, or the word learn alone"
            place.wrong(f"got {shown(settings)}; {advice}", LEARN)
            return None
        raw = {catalogue.key: catalogue.learned, **(settings or {})}
    if raw == SEARCH or (isinstance(raw, Mapping) and set(raw) == {SEARCH}):
        kinds = ", ".join(list(catalogue.configs)[:3])
        place.wrong(f"a whole component has no range: list the kinds, such as {{search: [{kinds}]}}")
        return None
    if isinstance(raw, str | Mapping):
        return {catalogue.key: raw} if isinstance(raw, str) else dict(raw)
    place.wrong(f"got {shown(raw)}; give the {catalogue.noun}'s name or a mapping of its settings")
    return None


def _why_not_learned(catalogue: Catalogue) -> str:
    settings = [(kind, field) for kind, config in catalogue.configs.items() for field in fields_of(config).values()]
    knobs = [f"{kind}.{field.name}" for kind, field in settings if field.learnable]
    advice = f"; learn one of its settings ({', '.join(knobs)})" if knobs else "; fix it or search it"
    return f"no {catalogue.noun} is learned as a whole{advice}"


def parse_settings(
    catalogue: Catalogue,
    kind: str,
    settings: Mapping[str, Any],
    base: Mapping[str, Any],
    place: Place,
    spelt: Mapping[str, str] = MappingProxyType({}),
) -> Section:
    """Parse a kind's settings, each in any mode, over ``base`` and the kind's defaults.

    A setting that was given under another name, by ``spelt``, has its place and the name of its knob from that.
    """
    config = catalogue.configs[kind]
    fields, before = fields_of(config), len(place.problems)
    for name in settings:
        if name not in fields:
            place.wrong(_unknown_setting(catalogue, kind, name), name)
    own = {name: one.default for name, one in fields.items()} | dict(catalogue.defaults.get(kind, {}))
    nodes: dict[str, Node] = {}
    for name, one in fields.items():
        fallback = base.get(name, own[name])
        nodes[name] = parse_knob(one, settings.get(name, MISSING), fallback, place.at(spelt.get(name, name)))
    unsaid = {name for name, one in fields.items() if one.added and nodes[name] == Fixed(as_written(own[name]))}
    named = {catalogue.key: Fixed(kind), **nodes} if catalogue.key else nodes
    section = Section(place, kind, named, frozenset(unsaid))
    if len(place.problems) == before:
        _check_values(config, section, catalogue.key)
    return section


def _unknown_setting(catalogue: Catalogue, kind: str, name: str) -> str:
    allowed = [*fields_of(catalogue.configs[kind]), *catalogue.also, *([catalogue.key] if catalogue.key else [])]
    message = unknown(f"setting of {kind or catalogue.noun}", name, allowed)
    owners = [other for other, config in catalogue.configs.items() if other != kind and name in fields_of(config)]
    return f"{message}; it is a setting of {', '.join(owners)}" if owners else message


def _check_values(config: type, section: Section, key: str) -> None:
    """Build the configuration, which checks itself, at the default and at the ends of what is searched.

    An error about the whole configuration that occurs at some of these points only, such as of a mixture all of whose
    searched coefficients are 0, is no error of the space: a trial that samples such a point fails with this message.
    """
    complaints = []
    for suggest in CORNERS:
        values = resolve_node(section, suggest, {})
        values.pop(key, None)
        complaints.append(_complaint(config, values))
    placed = [_placed(one, section) for one in complaints if one is not None]
    wrong = [one for one in placed if None not in complaints or one[0] != section.place.path]
    if wrong:
        section.place.problems.add(*wrong[0])


def _placed(complaint: str, section: Section) -> tuple[Path, str]:
    """Split off the field that a configuration's complaint begins with, as in ``learner.update.rate must ...``.

    An item of a list is one too: ``learner.augmentation.operations[1]: no ...``.
    """
    place, _, message = complaint.partition(" ")
    path = section.place.path
    found = FIELD_AND_ITEM.fullmatch(place.rpartition(".")[2])
    begin = path[2:3] if path[:1] == ("stages",) else path[:1]
    if found and found[1] in section.fields and place.startswith(tuple(map(str, begin))):
        return (*path, found[1], *([int(found[2])] if found[2] else [])), message
    return path, complaint.removeprefix(f"{section.place.name}: ")


def learned_parts(section: Section, learns: Mapping[str, bool]) -> list[str]:
    """Name what a component learns: itself, if ``learns`` is true of its kind, and its learned knobs."""
    whole = [section.place.name] if learns.get(section.kind, False) else []
    return whole + [node.place.name for node in tree.walk_nodes(section) if isinstance(node, tree.LearnedKnob)]


def _as_held(resolved: Any) -> Any:
    if isinstance(resolved, Mapping) and LEARN in resolved:
        return Learned(**resolved[LEARN])
    return tuple(resolved) if isinstance(resolved, list) else resolved


def _complaint(config: type, values: Mapping[str, Any]) -> str | None:
    """Build a configuration from resolved values; return the text of its error, or None."""
    try:
        config(**{name: _as_held(value) for name, value in values.items()})
    except (BadInput, ValueError) as error:
        return str(error)
    return None
