"""Choosing: a tree of knobs and a ``Suggest`` become plain values."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from metaloom.learners.domains import NEARLY, Choice, Int, Real
from metaloom.learners.modes import LEARN
from metaloom.search_spaces.reading import nodes as tree
from metaloom.search_spaces.reading.nodes import Alternatives, Fixed, Node, Searched, walk_nodes

Value = str | int | float | bool
Domain = Real | Int | Choice


def holds(domain: Domain, value: Value) -> bool:
    """Return whether a knob of this domain may take a value; an option is given by its label."""
    if isinstance(domain, Choice):
        return str(value) in domain.options
    whole = isinstance(value, int) and not isinstance(value, bool)
    number = whole or (isinstance(value, float) and isinstance(domain, Real))
    if not (number and domain.low <= float(value) <= domain.high):
        return False
    return domain.step is None or abs(domain.steps_to(float(value)) - float(value)) <= NEARLY * domain.step


class Suggest(ABC):
    """Chooses the value of each searched knob, by its name."""

    @abstractmethod
    def value(self, name: str, domain: Domain) -> Value:
        """Choose a value in the domain; of a choice, the label of an option."""

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        """Choose a number in [low, high]."""
        return float(self.value(name, Real(low, high, log)))

    def integer(self, name: str, low: int, high: int, log: bool) -> int:
        """Choose a whole number in [low, high]."""
        return int(self.value(name, Int(low, high, log)))

    def choice(self, name: str, options: tuple[str, ...]) -> str:
        """Choose one of the options."""
        return str(self.value(name, Choice(options)))


class Given(Suggest):
    """Suggests given values: those of a recorded trial, of an earlier search's best one, or the defaults.

    Args:
        fallback: Asked for a knob without a value, or whose value is outside its domain; None accepts every value.
    """

    def __init__(self, values: Mapping[str, Value], fallback: Suggest | None = None) -> None:
        self.values, self.fallback = values, fallback

    def value(self, name: str, domain: Domain) -> Value:
        """Return the given value, or the fallback's."""
        if self.fallback is None or (name in self.values and holds(domain, self.values[name])):
            return self.values[name]
        return self.fallback.value(name, domain)


class _Corner(Suggest):
    """Suggests one end of every range: the first (0) or the last (-1)."""

    def __init__(self, end: int) -> None:
        self._end = end

    def value(self, name: str, domain: Domain) -> Value:
        return (domain.options if isinstance(domain, Choice) else (domain.low, domain.high))[self._end]


CORNERS: tuple[Suggest | None, ...] = (None, _Corner(0), _Corner(-1))  # every default, every lower and every upper end


def resolve_node(node: Node, suggest: Suggest | None, knobs: dict[str, Value]) -> Any:
    """Return a node's plain value; ``suggest`` None takes every default.

    ``knobs`` receives each searched knob that exists under the choices made, by its name.
    """
    match node:
        case Fixed():
            return list(node.value) if isinstance(node.value, list) else node.value
        case tree.LearnedKnob():
            return {LEARN: {key: resolve_node(getattr(node, key), suggest, knobs) for key in ("start", "per")}}
        case tree.Section():
            return {name: resolve_node(child, suggest, knobs) for name, child in node.fields.items()}
        case tree.Several():
            return [resolve_node(member, suggest, knobs) for member in node.members]
        case tree.Spelling():
            return node.separator.join(resolve_node(part, suggest, knobs) for part in node.parts)
    knobs[node.name] = chosen = node.default if suggest is None else _suggested(node, suggest)
    return chosen if isinstance(node, Searched) else resolve_node(node.options[str(chosen)], suggest, knobs)


def domain_of(node: Searched | Alternatives) -> Domain:
    """Return what a sampler may choose from."""
    return node.domain if isinstance(node, Searched) else Choice(tuple(node.options))


def _suggested(node: Searched | Alternatives, suggest: Suggest) -> Value:
    domain = domain_of(node)
    kind = str if isinstance(domain, Choice) else int if isinstance(domain, Int) else float
    return kind(suggest.value(node.name, domain))


def domains(*nodes: Node) -> dict[str, Domain]:
    """Return every knob of some trees that could be suggested, under any choices, by its name."""
    found = (one for node in nodes for one in walk_nodes(node) if isinstance(one, Searched | Alternatives))
    return {one.name: domain_of(one) for one in found}
