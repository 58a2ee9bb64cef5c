"""A knob in its three modes: fixed, searched or learned, by one word.

``0.4`` fixes a value; ``{search: {low: 0.01, high: 1, log: true}}`` or ``{search: [0.1, 0.4]}`` searches it (``search``
alone: in the field's own range); ``{learn: {start: 0.1, per: layer}}`` learns it (``learn`` alone: from the field's
default). The options of a search may be knobs themselves, and so may a learned knob's start.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from metaloom.learners.domains import Bounds, Int, Learned, Real, Word
from metaloom.learners.errors import shown, unknown
from metaloom.learners.fields import MISSING, Field, Unfit, literal, meant_mode
from metaloom.learners.modes import LEARN, SEARCH
from metaloom.search_spaces.knobs.sampling import holds
from metaloom.search_spaces.reading import nodes as tree
from metaloom.search_spaces.reading.labels import label_of, label_of_default, labels_of, note_repeated
from metaloom.search_spaces.reading.nodes import Alternatives, Fixed, Node, Place

OF_LEARNED = ("start", "per")


def parse_knob(field: Field, raw: Any, fallback: Any, place: Place) -> Node:
    """Parse a field's value in any mode; problems are noted, and a stand-in is returned for them.

    Args:
        raw: The value as given; MISSING takes ``fallback``.
        fallback: The recipe's value or the default, as it would be given; MISSING if there is none.
    """
    if raw is MISSING:
        if fallback is MISSING:
            return place.wrong(field.missing())
        raw, fallback = fallback, field.default
    raw = as_written(raw)
    if field.mapping and raw is not None and (isinstance(raw, Mapping) or not field.types):
        return _parse_mapping(field, raw, place)
    if raw in (SEARCH, LEARN) and raw not in field.options:
        raw = {raw: {}}
    if not isinstance(raw, Mapping):
        return Fixed(_literal_or_none(field, raw, place))
    if set(raw) == {SEARCH}:
        return _searched(field, raw[SEARCH], fallback, place)
    if set(raw) == {LEARN}:
        return _learned(field, raw[LEARN], fallback, place)
    wrong = next((key for key in raw if key not in (SEARCH, LEARN)), None)
    modes = "give a value, {search: ...} or {learn: ...}"
    if wrong is None:
        return place.wrong(f"both searched and learned: keep one ({modes})")
    return place.wrong(f"{unknown('mode', wrong, (SEARCH, LEARN))}; {modes}", wrong)


def _refuse_others(
    given: Iterable[str], allowed: Sequence[str], noun: str, place: Place, also: Sequence[str] = ()
) -> None:
    for key in given:
        if key not in allowed:
            place.wrong(unknown(noun, key, (*allowed, *also)), key)


def _parse_mapping(field: Field, raw: Any, place: Place) -> Node:
    """Parse a mapping of names to values of any type, each fixed or searched."""
    if not isinstance(raw, Mapping):
        return place.wrong(f"got {shown(raw)}; give {field.allowed()}")
    nodes: dict[str, Node] = {}
    for name, value in raw.items():
        if not isinstance(value, Mapping):
            nodes[name] = Fixed(value)
        elif set(value) & {SEARCH, LEARN}:
            anything = Field(name, (bool, int, float, str), nullable=True)
            nodes[name] = parse_knob(anything, value, MISSING, place.at(name))
        else:
            nodes[name] = _parse_mapping(field, value, place.at(name))
    return tree.Section(place, "", nodes)


def as_written(raw: Any) -> Any:
    """Write a default that is a domain object or a tuple as in a file."""
    if isinstance(raw, Learned):
        return {LEARN: {key: value for key, value in vars(raw).items() if value is not None}}
    return list(raw) if isinstance(raw, tuple) else raw


def _number(fallback: Any) -> float | int | None:
    """Return the number in a recipe's value or a default, if there is one."""
    fallback = as_written(fallback)
    if isinstance(fallback, Mapping) and isinstance(fallback.get(LEARN), Mapping):
        fallback = fallback[LEARN].get("start")
    return None if isinstance(fallback, bool) or not isinstance(fallback, int | float) else fallback


def _middle(domain: Real | Int) -> float | int:
    middle = math.sqrt(domain.low * domain.high) if domain.log else (domain.low + domain.high) / 2
    return round(middle) if isinstance(domain, Int) else middle


def _searched(field: Field, raw: Any, fallback: Any, place: Place) -> Node:
    below = place.within(SEARCH)
    if isinstance(raw, list):
        return _options(field, raw, {}, fallback, place)
    if not isinstance(raw, Mapping):
        return below.wrong(f"got {shown(raw)}; give a range {{low: ..., high: ...}} or a list of options")
    if "options" in raw:
        return _options(field, raw["options"], raw, fallback, place)
    if field.domain is None and not raw and field.options:
        return _options(field, list(field.options), {}, fallback, place)
    if field.word is not None:
        return _spelling(field.word, raw, fallback, place)
    if not set(field.types) & {int, float} or field.options:
        return below.wrong(f"{place.path[-1]} has no range: give a list of options, each {field.allowed()}")
    return _range(field, raw, fallback, place)


def _spelling(word: Word, raw: Mapping[str, Any], fallback: Any, place: Place) -> Node:
    """Parse ``{length: 6, parts: [skip, conv3]}``: so many choices in a row, each among the parts given."""
    below, before = place.within(SEARCH), len(place.problems)
    _refuse_others(raw, ("length", "parts", "default"), "part of a search", below, also=("options",))
    length_field = Field("length", (int,), options=tuple(sorted(word.lengths)))
    parts_field = Field("parts", items=Field("parts", (str,), options=word.options))
    length = _literal_or_none(length_field, raw.get("length", word.lengths[0]), below.at("length"))
    parts = _literal_or_none(parts_field, raw.get("parts", list(word.options)), below.at("parts"))
    if parts is not None and len(set(parts)) < max(len(parts), 1):
        below.wrong(f"got {shown(parts)}; give at least one option, each once", "parts")
    if len(place.problems) > before:
        return Fixed(None)
    given = raw.get("default", fallback)
    defaults = str(given).split(word.separator) if isinstance(given, str) else []
    fits = len(defaults) == length and set(defaults) <= set(parts)
    if "default" in raw and not fits:
        message = f"got {shown(given)}; give {length} of {', '.join(parts)} with '{word.separator}' between them"
        return below.wrong(message, "default")
    options = {part: Fixed(part) for part in parts}
    chosen = defaults if fits else [word.default if word.default in parts else parts[0]] * length
    names = [f"{place.name}.{word.part}{index}" for index in range(length)]
    spelt = tuple(Alternatives(name, options, default) for name, default in zip(names, chosen, strict=True))
    return tree.Spelling(spelt, word.separator)


def _range(field: Field, raw: Mapping[str, Any], fallback: Any, place: Place) -> Node:
    below, before = place.within(SEARCH), len(place.problems)
    _refuse_others(raw, ("low", "high", "step", "log", "default"), "part of a range", below)
    own = field.domain
    if own is None and not {"low", "high"} <= set(raw):
        below.wrong(f"{place.path[-1]} has no range of its own: give {{low: ..., high: ...}}")
    plain = replace(field, options=(), nullable=False, learnable=False)
    ends = {
        key: _literal_or_none(plain, raw.get(key, getattr(own, key, None)), below.at(key))
        for key in ("low", "high")
        if key in raw or own is not None
    }
    by_default = bool(own and own.log and "step" not in raw)
    log = _literal_or_none(Field("log", (bool,)), raw.get("log", by_default), below.at("log"))
    length = replace(plain, nullable=True, bounds=Bounds(above=0))
    step = _literal_or_none(length, raw.get("step"), below.at("step"))
    if len(place.problems) > before:
        return Fixed(None)
    low, high = ends["low"], ends["high"]
    if not low < high:
        advice = f"swap them: {{low: {high}, high: {low}}}" if high < low else "fix the value instead"
        return below.wrong(f"low must be below high, got low {low} and high {high}; {advice}")
    if log and low <= 0:
        advice = "raise low or drop log: true"
        return below.wrong(f"a log range must start above 0, got low {low}; {advice}")
    if step is not None and log:
        return below.wrong("a log range has no step: drop one of them", "step")
    if step is not None and step > high - low:
        return below.wrong(f"got {step}, more than from low {low} to high {high}; give a smaller one", "step")
    kind: Any = Real if float in field.types else Int
    last = kind(low, high, log=log, step=step).steps_to(high)
    domain = kind(low, last, log=log, step=step)
    return tree.Searched(place.name, domain, _default_in(domain, plain, raw, fallback, below))


def _default_in(domain: Real | Int, plain: Field, raw: Mapping[str, Any], fallback: Any, below: Place) -> float | int:
    """Return the default of a range: the one given, the field's own, or the middle, at the nearest step."""
    low, high, default = domain.low, domain.high, _number(fallback)
    if "default" in raw:
        default = _literal_or_none(plain, raw["default"], below.at("default"))
        if default is not None and not holds(domain, default):
            steps = "" if domain.step is None else f" in steps of {domain.step}"
            below.wrong(f"got {default}; allowed: from {low} to {high}{steps}", "default")
    if default is None or not low <= default <= high:
        default = _middle(domain)
    nearest = domain.steps_to(default)
    return float(nearest) if isinstance(domain, Real) else int(nearest)


def _literal_or_none(field: Field, raw: Any, place: Place) -> Any:
    try:
        return literal(field, raw)
    except Unfit as error:
        place.wrong(str(error), *error.path)
        return None


def _options(field: Field, raw: Any, settings: Mapping[str, Any], fallback: Any, place: Place) -> Node:
    below = place.within(SEARCH, "options") if settings else place.within(SEARCH)
    _refuse_others(settings, ("options", "default"), "part of a choice", place.within(SEARCH))
    if not isinstance(raw, list) or not raw:
        return below.wrong(f"got {shown(raw)}; give a list of at least one option")
    labels, before = labels_of(raw), len(place.problems)
    options = {
        label: parse_knob(field, option, fallback, place.option((*below.path, index), label))
        for index, (option, label) in enumerate(zip(raw, labels, strict=True))
    }
    note_repeated(raw, labels, below, tuple(options.values()) if len(place.problems) == before else ())
    if "default" in settings:
        default = given_default(settings["default"], raw, labels, place)
    else:
        own = as_written(fallback)
        alike = (label for option, label in zip(raw, labels, strict=True) if label_of(option) == label_of(own))
        default = label_of_default(own, raw, labels) or next(alike, labels[0])
    return Alternatives(place.name, options, default)


def given_default(given: Any, options: list[Any], labels: list[str], place: Place, key: str = "kind") -> str:
    """Return the label of a choice's default; one that is no member is noted."""
    label = label_of_default(given, options, labels, key)
    if label is None:
        place.wrong(unknown("option", label_of(given, key), labels), SEARCH, "default")
    return label or labels[0]


def _learned(field: Field, raw: Any, fallback: Any, place: Place) -> Node:
    below = place.within(LEARN)
    if not field.learnable or not isinstance(field.domain, Real):
        return place.wrong(field.why_not_learned(str(place.path[-1] if place.path else field.name)))
    settings = {} if raw is None else raw
    if not isinstance(settings, Mapping):
        settings = {"start": settings}
        below = place
    for key in settings:
        if key not in OF_LEARNED:  # ``--set ...rate.lern.per`` puts a misspelt mode below too
            noun, allowed = ("mode", (LEARN, SEARCH)) if meant_mode(key) else ("setting of a learned knob", OF_LEARNED)
            below.wrong(unknown(noun, key, allowed), key)
    inherited = as_written(fallback)
    inherited = inherited.get(LEARN) or {} if isinstance(inherited, Mapping) else {}
    start = next((one for one in map(_number, (fallback, field.default)) if one is not None), None)
    if start is None or (field.domain.positive and start <= 0):
        start = _middle(field.domain)
    start_field = Field("start", (float,), domain=field.domain)
    per_field = Field("per", (str,), options=field.domain.per)
    start_node = parse_knob(start_field, settings.get("start", MISSING), start, below.at("start"))
    per = inherited.get("per", field.domain.per[0])
    per_node = parse_knob(per_field, settings.get("per", MISSING), per, below.at("per"))
    if field.domain.positive and isinstance(start_node, Fixed) and start_node.value == 0:
        below.wrong(f"{place.path[-1]} is learned as a logarithm: start above 0", "start")
    return tree.LearnedKnob(place, start_node, per_node)
