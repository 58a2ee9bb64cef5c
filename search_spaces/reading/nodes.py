"""The tree of nodes that an experiment's values are read into, each fixed, searched or learned."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from metaloom.learners.domains import Int, Real
from metaloom.search_spaces.errors import Path, Problems


@dataclass(frozen=True)
class Place:
    """The place of a value: its path in the document, the name that its knob has, and the problems noted so far.

    Path and name differ inside a choice: ``learner.search[0].update.rate`` in the file is the knob
    ``learner[maml].update.rate``.
    """

    path: Path
    name: str
    problems: Problems = field(default_factory=Problems, compare=False, repr=False)

    def at(self, key: str) -> "Place":
        """Return the place of a field."""
        return Place((*self.path, key), f"{self.name}.{key}" if self.name else key, self.problems)

    def within(self, *keys: str | int) -> "Place":
        """Return a place further down in the document, of the same knob."""
        return Place((*self.path, *keys), self.name, self.problems)

    def option(self, path: Path, label: str) -> "Place":
        """Return the place of a choice's member."""
        return Place(path, f"{self.name}[{label}]", self.problems)

    def wrong(self, message: str, *keys: str | int) -> "Node":
        """Note a problem here, or at ``keys`` below, and return a stand-in for the value."""
        self.problems.add((*self.path, *keys), message)
        return Fixed(None)


@dataclass(frozen=True)
class Fixed:
    """A value that nothing changes."""

    value: Any


@dataclass(frozen=True)
class Searched:
    """A number that the sampler chooses."""

    name: str
    domain: Real | Int
    default: float | int


@dataclass(frozen=True)
class Alternatives:
    """A choice that the sampler makes; its members may contain knobs, which exist only if they are chosen."""

    name: str
    options: Mapping[str, "Node"]
    default: str


@dataclass(frozen=True)
class Spelling:
    """A text that the sampler puts together, part by part."""

    parts: tuple[Alternatives, ...]
    separator: str


@dataclass(frozen=True)
class LearnedKnob:
    """A value that the hypergradient moves."""

    place: Place
    start: "Node"
    per: "Node"


@dataclass(frozen=True)
class Section:
    """Named values; ``kind`` is the component's, the source's or the method's name.

    Attributes:
        unsaid: The settings that came later than others and have their defaults; digests leave them out.
    """

    place: Place
    kind: str
    fields: Mapping[str, "Node"]
    unsaid: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Several:
    """Components that fill one slot together, in their order."""

    place: Place
    members: tuple["Node", ...]


Node = Fixed | Searched | Alternatives | LearnedKnob | Section | Several | Spelling


def meaning(node: Node) -> tuple[Any, ...]:
    """Return a node without its place and the names of its knobs, such that nodes of equal meaning are equal."""
    match node:
        case Fixed():
            return "fixed", repr(node.value)  # 1, 1.0 and True are equal in Python
        case Searched():
            return "searched", node.domain, node.default
        case Alternatives():
            own: tuple[Any, ...] = ("alternatives", meaning(node.options[node.default]))
        case Spelling():
            own = "spelling", node.separator
        case Section():
            own = "section", node.kind, *node.fields
        case LearnedKnob() | Several():
            own = (type(node).__name__,)
    return *own, *(meaning(child) for child in children(node))


def children(node: Node) -> tuple[Node, ...]:
    """Return the nodes directly inside a node, in their order."""
    match node:
        case Alternatives():
            return tuple(node.options.values())
        case Spelling():
            return node.parts
        case Section():
            return tuple(node.fields.values())
        case Several():
            return node.members
        case LearnedKnob():
            return node.start, node.per
    return ()


def walk_nodes(node: Node) -> Iterator[Node]:
    """Yield a node and all inside it."""
    yield node
    for child in children(node):
        yield from walk_nodes(child)
