"""Reads YAML text, safely, into plain values and the line of each.

A YAML 1.2 core reader on PyYAML's C parser: ``1e-3`` is a number; ``no``, ``on`` and ``12:30`` are texts; a key given
twice, a tag, or a document made to exhaust memory (nesting, aliases, size) is an error. It constructs only mappings,
lists and scalars.
"""

import numbers
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import yaml
from pydantic import BaseModel

from metaloom.learners.domains import Choice, Int, Learned, Real
from metaloom.learners.errors import shown
from metaloom.learners.modes import LEARN, SEARCH
from metaloom.search_spaces.errors import ExperimentError, InputProblem, Path, Problems

MAX_BYTES = 1 << 20  # an experiment is a few kB
MAX_DEPTH = 40
MAX_ALIASES = 100
MAX_NODES = 20_000  # after aliases are expanded

PREFIX = "tag:yaml.org,2002:"
RESOLVERS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)


class CoreLoader(yaml.CSafeLoader):
    """PyYAML's C parser with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (the base class reads it)


class CoreDumper(yaml.SafeDumper):
    """Writes what ``CoreLoader`` reads back: texts that look like its scalars are quoted."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal values out each time."""
        return True


for _kind, _pattern, _first in RESOLVERS:
    for _class in (CoreLoader, CoreDumper):
        _class.add_implicit_resolver(PREFIX + _kind, re.compile(rf"^(?:{_pattern})$"), _first)


@dataclass(frozen=True)
class Document:
    """An experiment's raw values, and where each was given.

    Attributes:
        origins: Path to ``file:line`` or ``--set ...``.
        source: The file's name, or a description.
    """

    data: dict[str, Any]
    origins: dict[Path, str] = field(default_factory=dict)
    source: str = "the experiment"
    text: str = ""


def read_yaml(text: str, source: str) -> Document:
    """Parse YAML text.

    Args:
        source: Its file's name, for errors and origins.

    Raises:
        ExperimentError: It is not YAML, not a mapping, has a key twice, or exceeds a limit.
    """
    data, problems = parse(text, source)
    if not problems.found and not isinstance(data, dict):
        expected = "expected a mapping of sections (tasks, learner, ...), got"
        # an empty file has no line to point at
        problems.add((), f"{source}: {expected} nothing" if data is None else f"{expected} {shown(data)}")
    if problems.found:
        raise ExperimentError(problems.found, source)
    return Document(data, problems.origins, source, text)


def read_value(text: str) -> Any:
    """Parse one YAML value, such as the right side of ``--set PATH=VALUE``; raises ExperimentError."""
    data, problems = parse(text, "")
    if problems.found:
        raise ExperimentError([InputProblem((), problem.message) for problem in problems.found])
    return data


def parse(text: str, source: str) -> tuple[Any, Problems]:
    """Parse any YAML value; return it, and what is wrong, with the origin of each path."""
    problems = Problems()
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        problems.add((), f"{source or 'the value'} is larger than {MAX_BYTES >> 20} MiB: an experiment is a few kB")
        return None, problems
    try:
        _check_limits(text)
        node = CoreLoader(text).get_single_node()
    except yaml.YAMLError as error:
        problems.found.append(_syntax_problem(error, source))
        return None, problems
    return None if node is None else _Reader(source, problems).value(node, ()), problems


def _check_limits(text: str) -> None:
    """Refuse deep nesting and alias bombs before anything recursive sees the text."""
    depth = aliases = 0
    for event in yaml.parse(text, Loader=CoreLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        for count, limit, what in ((depth, MAX_DEPTH, "levels of nesting"), (aliases, MAX_ALIASES, "aliases")):
            if count > limit:
                raise yaml.MarkedYAMLError(problem=f"more than {limit} {what}", problem_mark=event.start_mark)  # type: ignore[arg-type]


def _syntax_problem(error: yaml.YAMLError, source: str) -> InputProblem:
    if not isinstance(error, yaml.MarkedYAMLError):
        return InputProblem((), f"not valid YAML: {' '.join(str(error).split())}", source)
    mark, context = error.problem_mark or error.context_mark, error.context
    origin = f"{source}:{mark.line + 1}" if mark is not None and source else source
    if context and error.context_mark is not None and mark is not None and error.context_mark.line != mark.line:
        context += f" that begins in line {error.context_mark.line + 1}"
    reason = ", ".join(part for part in (context, error.problem) if part)
    return InputProblem((), f"not valid YAML: {reason}", origin)


class _Reader:
    """Builds plain values from nodes, noting the line of each."""

    def __init__(self, source: str, problems: Problems) -> None:
        self.source, self.problems, self.nodes = source, problems, 0

    def value(self, node: yaml.Node, path: Path, key: yaml.Node | None = None) -> Any:
        """Return the node's value; ``key`` is the node of its key, whose line is the field's line."""
        if self.source:
            self.problems.origins[path] = f"{self.source}:{(key or node).start_mark.line + 1}"
        self.nodes += 1
        if self.nodes > MAX_NODES or len(path) > MAX_DEPTH:
            self.problems.add((), f"more than {MAX_NODES} values or {MAX_DEPTH} levels, once aliases are expanded")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            self._refuse_tag(node, path, "seq")
            return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        self._refuse_tag(node, path, "map")
        result, lines = dict[str, Any](), dict[str, int]()
        for key, child in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self.problems.add(path, f"line {line}: a key must be a name, not a list or a mapping")
                continue
            name = key.value
            if name in lines:
                message = f"given twice, in lines {lines[name]} and {line}: remove one"
                self.problems.found.append(InputProblem((*path, name), message, f"{self.source}:{line}"))
                continue
            lines[name] = line
            result[name] = self.value(child, (*path, name), key)
        return result

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        match node.tag.removeprefix(PREFIX):
            case "str":
                return node.value
            case "null":
                return None
            case "bool" if node.value.lower() in ("true", "false"):
                return node.value.lower() == "true"
            case "int" | "float":
                return self._number(node, path)
        self._refuse_tag(node, path, "str")
        return None

    def _number(self, node: yaml.Node, path: Path) -> Any:
        text = node.value
        try:
            if node.tag.endswith("int"):
                return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError as error:
            self.problems.add(path, f"not a number that can be read: {str(error).splitlines()[0]}")
            return None

    def _refuse_tag(self, node: yaml.Node, path: Path, expected: str) -> None:
        if node.tag != PREFIX + expected:
            self.problems.add(path, f"the tag {node.tag.replace(PREFIX, '!!')} is not allowed: write a plain value")


def plain(value: Any) -> Any:
    """Return Python objects as the values of a file: a domain is a search, ``Learned`` a learned knob.

    Numbers of numpy become Python's; anything unknown is returned unchanged, and refused later with its place.
    """
    match value:
        case None | bool() | str():
            return value
        case Real() | Int():
            step = {} if value.step is None else {"step": value.step}
            return {SEARCH: {"low": value.low, "high": value.high, "log": value.log, **step}}
        case Choice():
            return {SEARCH: list(value.options)}
        case Learned():
            return {LEARN: {key: plain(one) for key, one in vars(value).items() if one is not None}}
        case BaseModel():
            return plain(value.model_dump(mode="json"))
        case Mapping():
            return {str(key): plain(one) for key, one in value.items()}
        case list() | tuple():
            return [plain(one) for one in value]
        case PurePath():
            return str(value)
        case numbers.Integral():
            return int(value)
        case numbers.Real():
            return float(value)
    return value
