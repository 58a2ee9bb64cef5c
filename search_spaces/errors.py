"""The problems of an experiment, each with its place and what to write instead; pydantic's errors as such problems."""

import sys
import types
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from metaloom.learners.errors import BadInput, shown, unknown
from metaloom.learners.redaction import redacted

if TYPE_CHECKING:  # a bundle is served without pydantic, and its data may be of sources that others are part of
    from pydantic import BaseModel, ValidationError

Path = tuple[str | int, ...]


def dotted(path: Path) -> str:
    """Write a path as ``learner.search[0].update.rate``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@dataclass(frozen=True)
class InputProblem:
    """One thing that is wrong.

    Attributes:
        path: The field, as a path into the experiment.
        message: What was given, what is allowed, and the nearest right spelling.
        origin: Where it was given: ``search.yaml:12``, or ``--set PATH=VALUE``; empty for Python objects.
    """

    path: Path
    message: str
    origin: str = ""

    @property
    def line(self) -> int:
        """The line of the file, for sorting; problems without a file come last."""
        last = self.origin.rpartition(":")[2]
        return int(last) if last.isdecimal() else sys.maxsize

    def __str__(self) -> str:
        return redacted(": ".join(part for part in (self.origin, dotted(self.path), self.message) if part))


class ExperimentError(BadInput):
    """An experiment that cannot run, with all its problems at once."""

    def __init__(self, problems: Sequence[InputProblem], source: str = "the experiment") -> None:
        self.problems = sorted(problems, key=lambda problem: problem.line)
        self.source = source
        if len(self.problems) == 1:
            super().__init__(str(self.problems[0]))
        else:
            lines = "".join(f"\n  {problem}" for problem in self.problems)
            super().__init__(f"{source} has {len(self.problems)} problems:{lines}")


class Problems:
    """Collects problems, so that all are reported at once.

    Args:
        origins: Where each path was given; a path that is not there has its nearest parent's.
    """

    def __init__(self, origins: dict[Path, str] | None = None) -> None:
        self.found: list[InputProblem] = []
        self.origins = origins or {}

    def add(self, path: Path, message: str) -> None:
        """Note a problem, once."""
        problem = InputProblem(path, message, self.origin(path))
        if problem not in self.found:
            self.found.append(problem)

    def origin(self, path: Path) -> str:
        """Return where the path, or its nearest parent, was given."""
        parents = (path[:length] for length in range(len(path), -1, -1))
        return next((self.origins[parent] for parent in parents if parent in self.origins), "")

    def __len__(self) -> int:
        return len(self.found)


def validation_problems(
    error: "ValidationError", document: Mapping[str, Any], model: "type[BaseModel]", problems: Problems
) -> None:
    """Note each of pydantic's errors; ``model`` gives the nearest spelling of unknown keys."""
    for one in error.errors(include_url=False):
        problems.add(_path_in(document, one["loc"]), _message(dict(one), model))


def _path_in(document: Any, loc: tuple[int | str, ...]) -> Path:
    """Drop what pydantic adds to a path (the tags of unions), keeping what the document has and a missing last key."""
    path: list[int | str] = []
    value = document
    for position, part in enumerate(loc):
        keys: Container[Any] = (
            value if isinstance(value, Mapping) else range(len(value) if isinstance(value, list) else 0)
        )
        if part in keys:
            value = value[part]
            path.append(part)
        elif position == len(loc) - 1 and isinstance(value, Mapping):
            path.append(part)
    return tuple(path)


def _message(error: dict[str, Any], model: "type[BaseModel]") -> str:
    kind, context = error["type"], error.get("ctx", {})
    given = shown(error["input"])
    match kind:
        case "extra_forbidden":
            return unknown("setting", error["loc"][-1], _allowed_keys(model, error["loc"][:-1]))
        case "model_type" | "model_attributes_type":
            return f"got {given}; give a mapping of its settings: {', '.join(_allowed_keys(model, error['loc']))}"
        case "missing":
            return "not given, and has no default"
        case "literal_error":
            allowed = [option.strip(" '") for option in context["expected"].replace(" or ", ",").split(",")]
            return unknown("option", error["input"], allowed)
        case "string_pattern_mismatch" if error["loc"][-1] in ("name", "search", "experiment"):
            return f"got {given}; allowed: 1 to 80 letters, digits, '.', '_' and '-', the first neither '.' nor '-'"
        case "string_pattern_mismatch":
            return f"got {given}; allowed: {context['pattern'].strip('^$()').replace('|', ', ')}"
        case "value_error":
            return str(context["error"])
    reason = error["msg"].removeprefix("Input should ").replace("a valid integer", "a whole number")
    return f"got {given}; it must {reason}"


def _allowed_keys(model: "type[BaseModel]", loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the model that pydantic was looking at."""
    models = [model]
    for part in loc:
        fields = [one.model_fields[part] for one in models if isinstance(part, str) and part in one.model_fields]
        models = [nested for field in fields for nested in _models(field.annotation)] or models
    return sorted({name for one in models for name in one.model_fields})


def _models(annotation: Any) -> "Iterator[type[BaseModel]]":
    if get_origin(annotation) in (Annotated, Union, types.UnionType, tuple):
        for argument in get_args(annotation):
            yield from _models(argument)
    elif isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        yield annotation
