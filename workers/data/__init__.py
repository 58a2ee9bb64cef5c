"""Task sources: where episodes come from.

``open_source`` serves a trial; ``prepare`` is called once before any trial starts, so
that whatever is wrong with the data is said then, and the caches are built once.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from metaloom.learners.errors import LearnerError
from metaloom.learners.fields import make_config
from metaloom.learners.plugins import TASK_SOURCES, load_plugins, unknown_or_absent
from metaloom.workers.data.base import (
    SOURCES,
    SPLITS,
    CacheError,
    DataError,
    SampledEpisode,
    Source,
    SourceSummary,
    SplitSummary,
    TaskSource,
)

__all__ = [
    "SOURCES",
    "SPLITS",
    "CacheError",
    "DataError",
    "SampledEpisode",
    "SourceSummary",
    "SplitSummary",
    "TaskSource",
    "open_source",
    "prepare",
]

load_plugins(TASK_SOURCES)  # each source registers itself, the files of this folder first


def open_source(tasks: Mapping[str, Any], *, seed: int, cache: Path) -> TaskSource:
    """Open a task source, memory-mapped; build its cache first if there is none.

    Args:
        tasks: The resolved ``tasks`` section: ``source`` and that source's fields.
        seed: With split and index, all that an episode depends on.
        cache: Folder shared by all processes of this machine.

    Raises:
        DataError: The settings or the data are wrong.
        CacheError: The cache folder is not usable.
    """
    source, config = _read_tasks(tasks)
    with _at_its_field(config):
        return source.open(config, seed=seed, cache=cache)


def prepare(tasks: Mapping[str, Any], *, cache: Path) -> SourceSummary:
    """Check the data and build its cache; return what each split holds.

    Raises:
        DataError: The settings or the data are wrong, or have too few classes or samples.
        CacheError: The cache folder is not usable.
    """
    source, config = _read_tasks(tasks)
    with _at_its_field(config):
        opened = source.open(config, seed=0, cache=cache)
        return replace(opened.summary(), digest=opened.digest)


def _read_tasks(tasks: Mapping[str, Any]) -> tuple[type[Source], Any]:
    """Return the source's class and its configuration; raises DataError that names all wrong fields at once."""
    settings = dict(tasks)
    name = settings.pop("source", None)
    if name not in SOURCES:
        raise DataError("tasks.source: " + unknown_or_absent("task source", name, SOURCES))
    source = SOURCES[name]
    try:
        return source, make_config(source.Config, settings, "tasks", str(name))
    except LearnerError as error:
        raise DataError(str(error)) from error


@contextmanager
def _at_its_field(config: Any) -> Iterator[None]:
    """Name the field that led to a file with something wrong in it, where the complaint names the file alone."""
    try:
        yield
    except DataError as error:
        if str(error).startswith("tasks."):
            raise
        field = "source" if getattr(config, "path", None) is None else "path"
        raise DataError(f"tasks.{field}: {error}") from error
