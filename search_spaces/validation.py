"""pydantic's errors in the words of every other problem: path, what was given, what is allowed."""

import types
from collections.abc import Iterator, Mapping
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
        path = _path_in(document, one["loc"])
        problems.add(path, _message(dict(one), model))


def _path_in(document: Any, loc: tuple[int | str, ...]) -> Path:
    """Drop what pydantic adds to a path (the tags of unions), keeping what the document has and a missing last key."""
    path: list[int | str] = []
    here = document
    for position, part in enumerate(loc):
        inside = isinstance(here, Mapping) and part in here
        inside = inside or (isinstance(here, list) and isinstance(part, int) and part < len(here))
        if inside:
            here = here[part]
            path.append(part)
        elif position == len(loc) - 1 and isinstance(here, Mapping):
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
        case "union_tag_invalid":
            return unknown("kind", context["tag"], [tag.strip(" '") for tag in context["expected_tags"].split(",")])
        case "union_tag_not_found":
            return f"got {given}; give a kind's name, or a mapping with the key kind"
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
    here: list[type[BaseModel]] = [model]
    for part in loc:
        if isinstance(part, int):
            continue
        tagged = [one for one in here if "kind" in one.model_fields and one.model_fields["kind"].default == part]
        below = [
            nested
            for one in here
            if part in one.model_fields
            for nested in _models(one.model_fields[str(part)].annotation)
        ]
        here = tagged or below or here
    return sorted({name for one in here for name in one.model_fields})


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models inside a type annotation."""
    if get_origin(annotation) in (Annotated, Union, types.UnionType, tuple):
        for argument in get_args(annotation):
            yield from _models(argument)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
