"""A task source: where episodes come from, opened from one section of an experiment."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.errors import BadEnvironment, BadInput
from metaloom.learners.registry import Registry
from metaloom.search_spaces.sections import tasks

SPLITS = ("train", "validation", "test")


class DataError(BadInput):
    """The data, or the settings, cannot make episodes."""


class CacheError(BadEnvironment):
    """The cache folder cannot be written or read."""


@dataclass(frozen=True)
class SampledEpisode:
    """An episode with the facts that its record holds.

    Attributes:
        seed: Below 2**63; the episode's own random draws (a random head, a shuffled inner loop) derive from it.
        class_ids: Source-wide id of each local label; in regression the one task's id.
        sample_ids: Source-wide id of each example: the support set's, those without labels, the queries'; empty where
            examples are generated and not kept.
        source: The data set that it is of, where a source has several; empty otherwise.
    """

    episode: Episode
    seed: int
    class_ids: tuple[int, ...]
    sample_ids: tuple[int, ...]
    source: str = ""


@runtime_checkable
class TaskSource(Protocol):
    """All that a trial uses of its data."""

    name: str
    shape: TaskShape

    @abstractmethod
    def episode(self, split: str, index: int) -> SampledEpisode:
        """Return episode ``index`` of a split: a pure function of (seed, split, index)."""

    @abstractmethod
    def available(self, split: str) -> int | None:
        """Return how many distinct episodes the split has; None if it is endless."""


class Source(TaskSource, ABC):
    """Base of the registered sources.

    Attributes:
        Config: A frozen dataclass of the source's own fields of the ``tasks`` section.
        digest: Of the data; empty where they are generated, or come with the package.
        notes: Which of the user's data are not used.
        packages: Packages that reading the data needs, in addition to those of every bundle.
        meta_batch: Training episodes of an outer step; where ways or shots vary, these have the same ones.
        brightest: Where inputs are pixels in [0, 1]: the stored number of a white one, such as 255. Otherwise 0.
    """

    digest: str = ""
    notes: tuple[str, ...] = ()
    meta_batch: int = 1
    packages: ClassVar[tuple[str, ...]] = ()
    brightest: ClassVar[float] = 0.0
    Config: ClassVar[type[Any]]

    @classmethod
    def brightest_of(cls, shape: TaskShape, settings: Mapping[str, Any]) -> float:
        """Return ``brightest`` for tasks of this shape, by the ``tasks`` section they were opened with."""
        return cls.brightest

    @classmethod
    @abstractmethod
    def open(cls, config: Any, *, seed: int, cache: Path) -> "Source":
        """Open the source, building its cache first if there is none.

        Raises DataError if the data cannot make the episodes that are asked for, CacheError if the folder is unusable.
        """

    def as_trained(self, task: TaskShape) -> "Source":
        """Return the source with its examples in the numbers of training, which ``task`` keeps; itself, as here, if so.

        Raises DataError if it lacks what they are made of, such as a column.
        """
        return self

    def class_name(self, class_id: int) -> str:
        """Return the name of a class by its id in ``SampledEpisode.class_ids``; the id where it has no name."""
        named = self.shape.class_names
        return named[class_id] if 0 <= class_id < len(named) else str(class_id)

    def available(self, split: str) -> int | None:
        """Return how many distinct episodes the split has; None if it is endless, as here."""
        check_split(split, 0)
        return None


class Sources(Registry[type[Source]]):
    """The sources by name; each brings its settings, which the experiments' schema reads in ``settings``."""

    def __init__(self, settings: Registry[type[Any]]) -> None:
        super().__init__("task source")
        self.settings = settings

    def add(self, name: str, entry: type[Source]) -> type[Source]:
        """Register a source and its settings; raises LearnerError if the name is taken."""
        super().add(name, entry)
        if self.settings.get(name) is not entry.Config:  # a package of 0.1 has registered them itself
            self.settings.add(name, entry.Config)
        return entry


SOURCES = Sources(tasks.TASK_SOURCES)
ONE_TASK_SOURCES = Sources(tasks.ONE_TASK_SOURCES)  # for ``episodes: single_task`` of a source that is in SOURCES too


def check_split(split: str, index: int, available: int | None = None) -> None:
    """Refuse a split or an episode that does not exist; raises DataError."""
    if split not in SPLITS:
        raise DataError(f"no split is named '{split}' (allowed: {', '.join(SPLITS)})")
    if index < 0 or (available is not None and index >= available):
        end = "" if available is None else f" to {available - 1}"
        raise DataError(f"{split} episode {index}: episodes are numbered from 0{end}")


def some(names: Sequence[object], most: int = 5) -> str:
    """List the first few names, and how many more there are."""
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
