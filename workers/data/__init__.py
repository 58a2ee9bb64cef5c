"""Task sources: where episodes come from."""

from metaloom.learners.plugins import TASK_SOURCES, load_plugins
from metaloom.workers.data.base import (
    ONE_TASK_SOURCES,
    SOURCES,
    SPLITS,
    CacheError,
    DataError,
    SampledEpisode,
    Source,
    TaskSource,
)
from metaloom.workers.data.opening import open_source

__all__ = [
    "ONE_TASK_SOURCES",
    "SOURCES",
    "SPLITS",
    "CacheError",
    "DataError",
    "SampledEpisode",
    "Source",
    "TaskSource",
    "open_source",
]

load_plugins(TASK_SOURCES)  # each source registers itself, the files of this folder first
