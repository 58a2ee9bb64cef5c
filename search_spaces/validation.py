"""pydantic's errors, rewritten like every other problem: path, what was given, what is allowed."""

import types
from collections.abc import Container, Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from metaloom.learners.errors import shown, unknown
from metaloom.search_spaces.errors import Path, Problems


def validation_problems(
    error: ValidationError, document: Mapping[str, Any], model: type[BaseModel], problems: Problems
) -> None:
    """Note each of pydantic's errors.

    Args:
        error: What pydantic raised.
        document: The raw values it looked at.
        model: The model it checked them against, for the spelling of unknown keys.
        problems: Collects them.
    """
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


def _message(error: dict[str, Any], model: type[BaseModel]) -> str:
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


def _allowed_keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the model that pydantic was looking at."""
    models: list[type[BaseModel]] = [model]
    for part in loc:
        fields = [one.model_fields[part] for one in models if isinstance(part, str) and part in one.model_fields]
        models = [nested for field in fields for nested in _models(field.annotation)] or models
    return sorted({name for one in models for name in one.model_fields})


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models inside a type annotation."""
    if get_origin(annotation) in (Annotated, Union, types.UnionType, tuple):
        for argument in get_args(annotation):
            yield from _models(argument)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
