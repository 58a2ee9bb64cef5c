"""Turns the ``tasks`` section into a source's own configuration, or says what is wrong with it."""

from collections.abc import Mapping
from typing import Any

from metaloom.learners.errors import LearnerError
from metaloom.learners.fields import make_config
from metaloom.learners.plugins import unknown_or_absent
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
    if name not in SOURCES:
        raise DataError("tasks.source: " + unknown_or_absent("task source", name, SOURCES))
    source = SOURCES[name]
    try:
        return source, make_config(source.Config, settings, "tasks", str(name))
    except LearnerError as error:
        raise DataError(str(error)) from error
