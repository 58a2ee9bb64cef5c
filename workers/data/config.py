"""Turns the ``tasks`` section into a source's own configuration, or says what is wrong with it."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from metaloom.learners.errors import unknown
from metaloom.learners.plugins import unknown_or_absent
from metaloom.search_spaces.sections.tasks import TASK_SOURCES
from metaloom.workers.data.base import SOURCES, DataError, Source


def read_tasks(tasks: Mapping[str, Any]) -> tuple[type[Source], Any]:
    """Return the source's class and its configuration.

    Args:
        tasks: The resolved section: ``source`` and that source's fields.

    Raises:
        DataError: The source or a field is unknown, a field is missing or of the wrong type. All
            wrong fields are named at once.
    """
    settings = dict(tasks)
    name = settings.pop("source", None)
    if name not in SOURCES and name in TASK_SOURCES:
        raise DataError(
            f"tasks.source: '{name}' has a settings class in TASK_SOURCES, but nothing that reads it: register a "
            "Source under the same name in metaloom.workers.data.SOURCES, and import both from the entry point"
        )
    if name not in SOURCES:
        raise DataError("tasks.source: " + unknown_or_absent("task source", name, SOURCES))
    source = SOURCES[name]
    hints = get_type_hints(source.Config, include_extras=True)
    problems = [f"tasks.{key}: " + unknown(f"field of {name}", key, hints) for key in settings if key not in hints]
    values: dict[str, Any] = {}
    for field in fields(source.Config):
        if field.name in settings:
            try:
                values[field.name] = _convert(hints[field.name], settings[field.name])
            except TypeError as error:
                problems.append(f"tasks.{field.name}: {error}")
        elif field.default is MISSING and field.default_factory is MISSING:
            problems.append(f"tasks.{field.name}: {name} needs it, and it is not given")
    if problems:
        raise DataError("\n".join(problems))
    return source, source.Config(**values)


def _convert(hint: Any, value: Any) -> Any:
    """Return ``value`` as ``hint``; lists become tuples and whole numbers floats, nothing else changes."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _convert(get_args(hint)[0], value)
    if origin in (Union, types.UnionType):
        return _convert_union(get_args(hint), value)
    if origin is Literal:
        if value not in get_args(hint):
            raise TypeError(f"got {value!r} (allowed: {', '.join(map(str, get_args(hint)))})")
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, list | tuple):
            raise TypeError(f"needs a list, got {value!r}")
        return tuple(_convert(get_args(hint)[0], item) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise TypeError(f"needs {hint.__name__}, got {value!r}")
    return value


def _convert_union(members: tuple[Any, ...], value: Any) -> Any:
    """Return ``value`` as the first member that takes it."""
    if value is None and type(None) in members:
        return None
    wanted = [member for member in members if member is not type(None)]
    reasons = []
    for member in wanted:
        try:
            return _convert(member, value)
        except TypeError as error:
            reasons.append(str(error))
    raise TypeError(", or ".join(reasons))
