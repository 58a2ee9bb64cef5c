"""Choosing: a tree of knobs and something that suggests become plain values."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from metaloom.learners.domains import Choice, Int, Real
from metaloom.learners.fields import LEARN
from metaloom.search_spaces.knobs.declarations import domain_of
from metaloom.search_spaces.reading.nodes import (
    Alternatives,
    Fixed,
    LearnedKnob,
    Node,
    Searched,
    Section,
    Several,
    Spelling,
)

Value = str | int | float | bool
Domain = Real | Int | Choice


def holds(domain: Domain, value: Value) -> bool:
    """Return whether a knob of this domain may take a value; a choice's options go by their labels."""
    if isinstance(domain, Choice):
        return str(value) in domain.options
    whole = isinstance(value, int) and not isinstance(value, bool)
    number = whole or (isinstance(value, float) and isinstance(domain, Real))
    return number and domain.low <= float(value) <= domain.high


def told(domain: Domain) -> str:
    """Write down what a knob of this domain may be."""
    if isinstance(domain, Choice):
        return ", ".join(map(str, domain.options))
    return f"[{domain.low:g}, {domain.high:g}]"


class Suggest(Protocol):
    """Chooses the value of each searched knob, by its name."""

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        """Choose a number in [low, high]."""
        ...

    def integer(self, name: str, low: int, high: int, log: bool) -> int:
        """Choose a whole number in [low, high]."""
        ...

    def choice(self, name: str, options: tuple[str, ...]) -> str:
        """Choose one of the options."""
        ...


class Given:
    """Suggests the values it was given, and a fallback's for the rest.

    It replays a recorded trial, an earlier search's best one, or the defaults.

    Args:
        values: Knob name to value; a value outside the range asked for is passed over.
        fallback: Asked for every other knob.
    """

    def __init__(self, values: Mapping[str, Value], fallback: Suggest) -> None:
        self.values = values
        self.fallback = fallback

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        """Return the given number, if it is in range."""
        value = self.values.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
            return float(value)
        return self.fallback.real(name, low, high, log)

    def integer(self, name: str, low: int, high: int, log: bool) -> int:
        """Return the given whole number, if it is in range."""
        value = self.values.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        return self.fallback.integer(name, low, high, log)

    def choice(self, name: str, options: tuple[str, ...]) -> str:
        """Return the given option, if it is one of the options."""
        value = self.values.get(name)
        return str(value) if value is not None and str(value) in options else self.fallback.choice(name, options)


class _Corner:
    """Suggests one end of every range: the first or the last."""

    def __init__(self, last: bool) -> None:
        self.last = last

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        return high if self.last else low

    def integer(self, name: str, low: int, high: int, log: bool) -> int:
        return high if self.last else low

    def choice(self, name: str, options: tuple[str, ...]) -> str:
        return options[-1 if self.last else 0]


def corners() -> Iterator[Suggest | None]:
    """Yield what takes every default (None), every lower end, every upper end."""
    yield from (None, _Corner(last=False), _Corner(last=True))


def resolve_node(node: Node, suggest: Suggest | None, knobs: dict[str, Value]) -> Any:
    """Return a node's plain value.

    Args:
        node: A tree of knobs.
        suggest: Chooses the searched ones; None takes every default.
        knobs: Receives each searched knob that exists under the choices made, by its name.
    """
    match node:
        case Fixed():
            return list(node.value) if isinstance(node.value, list) else node.value
        case LearnedKnob():
            return {LEARN: {key: resolve_node(getattr(node, key), suggest, knobs) for key in ("start", "per")}}
        case Section():
            return {name: resolve_node(child, suggest, knobs) for name, child in node.fields.items()}
        case Several():
            return [resolve_node(member, suggest, knobs) for member in node.members]
        case Spelling():
            return node.separator.join(resolve_node(part, suggest, knobs) for part in node.parts)
        case Searched():
            chosen = _suggested(node, suggest)
            knobs[node.name] = chosen
            return chosen
        case Alternatives():
            label = node.default if suggest is None else suggest.choice(node.name, tuple(node.options))
            knobs[node.name] = label
            return resolve_node(node.options[label], suggest, knobs)


def _suggested(node: Searched, suggest: Suggest | None) -> Value:
    if suggest is None:
        return node.default
    domain = node.domain
    if isinstance(domain, Int):
        return int(suggest.integer(node.name, domain.low, domain.high, domain.log))
    return float(suggest.real(node.name, domain.low, domain.high, domain.log))


def domains(node: Node) -> dict[str, Domain]:
    """Return every knob that could be suggested, whatever is chosen, by its name."""
    found: dict[str, Domain] = {}
    match node:
        case Searched():
            found[node.name] = domain_of(node)
        case Alternatives():
            found[node.name] = domain_of(node)
            for option in node.options.values():
                found |= domains(option)
        case Spelling():
            for part in node.parts:
                found |= domains(part)
        case Section():
            for child in node.fields.values():
                found |= domains(child)
        case Several():
            for member in node.members:
                found |= domains(member)
        case LearnedKnob():
            found = domains(node.start) | domains(node.per)
    return found
