"""Opens the task source that a ``tasks`` section names, with that source's settings."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from metaloom.learners.errors import LearnerError
from metaloom.learners.fields import fields_of, make_config
from metaloom.learners.plugins import unknown_or_absent
from metaloom.search_spaces.sections.sequences import SequenceSettings
from metaloom.search_spaces.sections.tasks import EPISODES, settings_of
from metaloom.workers.data.base import ONE_TASK_SOURCES, SOURCES, DataError, Source
from metaloom.workers.data.given_path import PREFIX, resolved
from metaloom.workers.data.sequences import SequencesOf


def open_source(tasks: Mapping[str, Any], *, seed: int, cache: Path) -> Source:
    """Open a task source, memory-mapped; check the data and build its cache first if there is none.

    Args:
        tasks: The resolved ``tasks`` section: ``source`` and that source's fields.
        seed: An episode depends on it, the split and the index alone.
        cache: Folder shared by all processes of this machine.

    Raises:
        DataError: The settings or the data are wrong, or have too few classes or samples.
        CacheError: The cache folder is not usable.
    """
    settings = dict(tasks)
    name = settings.pop("source", None)
    if name not in SOURCES:
        raise DataError("tasks.source: " + unknown_or_absent("task source", name, SOURCES))
    form = settings_of(str(name), settings.get(EPISODES))
    if form is None:
        raise DataError(f"tasks.{EPISODES}: {name} makes no {settings[EPISODES]} episodes")
    if EPISODES not in fields_of(form):
        settings.pop(EPISODES, None)
    try:
        config = make_config(form, settings, "tasks", str(name))
    except LearnerError as error:
        raise DataError(str(error)) from error
    in_order = issubclass(form, SequenceSettings)
    source = SOURCES[name] if in_order or form is SOURCES[name].Config else ONE_TASK_SOURCES[name]
    try:
        path = getattr(config, "path", None)
        if name != "arrays" and isinstance(path, str) and path.startswith(PREFIX):
            config = replace(config, path=str(resolved(path, cache)))
        classes = getattr(config, "class_features", None) or {}
        if str(classes.get("path", "")).startswith(PREFIX):
            config = replace(config, class_features={**classes, "path": str(resolved(classes["path"], cache))})
        if in_order:
            return SequencesOf.open(config, seed=seed, cache=cache, of=source)
        return source.open(config, seed=seed, cache=cache)
    except DataError as error:
        if str(error).startswith("tasks."):
            raise
        field = "source" if getattr(config, "path", None) is None else "path"  # the setting that named the file
        raise DataError(f"tasks.{field}: {error}") from error
