"""What a task source is: a place that episodes come from, opened from one section of an experiment."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.errors import BadEnvironment, BadInput
from metaloom.learners.registry import Registry
from metaloom.search_spaces.sections.tasks import TASK_SOURCES

SPLITS = ("train", "validation", "test")


class DataError(BadInput):
    """The data, or what was asked of it, cannot make episodes."""


class CacheError(BadEnvironment):
    """The cache folder cannot be written or read."""


@dataclass(frozen=True)
class SampledEpisode:
    """An episode, and what its record says of it.

    Attributes:
        seed: Below 2**63; where the episode itself needs randomness (a random head, a shuffled
            inner loop), it is drawn from this.
        class_ids: Source-wide id of each local label; in regression the one task's id.
        sample_ids: Source-wide id of each example, the support's first; empty where examples are
            generated and not kept.
    """

    episode: Episode
    seed: int
    class_ids: tuple[int, ...]
    sample_ids: tuple[int, ...]


@dataclass(frozen=True)
class SplitSummary:
    """How much one split holds; ``None`` where it is endless."""

    classes: int | None
    samples: int | None
    episodes: int | None


@dataclass(frozen=True)
class SourceSummary:
    """What a source holds.

    Attributes:
        name: The source.
        shape: Of its episodes.
        splits: What each split holds.
        notes: What of the user's data is not used.
        digest: Of the source's data; empty where they are generated.
    """

    name: str
    shape: TaskShape
    splits: dict[str, SplitSummary]
    notes: tuple[str, ...] = ()
    digest: str = ""


@runtime_checkable
class TaskSource(Protocol):
    """All that a trial knows of its data."""

    name: str
    shape: TaskShape

    def episode(self, split: str, index: int) -> SampledEpisode:
        """Return episode ``index`` of a split: a pure function of (seed, split, index)."""
        ...

    def available(self, split: str) -> int | None:
        """Return how many distinct episodes the split has; None if there is no end."""
        ...


class Source(ABC):
    """Base of the registered sources; a subclass is a ``TaskSource`` that can be opened.

    Attributes:
        Config: A frozen dataclass of the source's own fields of the ``tasks`` section.
        digest: Of the data; empty where they are generated, or come with the package.
        packages: Names of the packages that reading the data takes, beside those of every bundle.
    """

    name: str
    digest: str = ""
    packages: ClassVar[tuple[str, ...]] = ()
    Config: ClassVar[type[Any]]
    shape: TaskShape

    @classmethod
    @abstractmethod
    def open(cls, config: Any, *, seed: int, cache: Path) -> "Source":
        """Open the source, building its cache first if there is none.

        Raises:
            DataError: The data cannot make the episodes that are asked for.
            CacheError: The cache folder is not usable.
        """

    @abstractmethod
    def episode(self, split: str, index: int) -> SampledEpisode:
        """Return episode ``index`` of a split: a pure function of (seed, split, index)."""

    @abstractmethod
    def available(self, split: str) -> int | None:
        """Return how many distinct episodes the split has; None if there is no end."""

    @abstractmethod
    def summary(self) -> SourceSummary:
        """Say what each split holds."""


class Sources(Registry[type[Source]]):
    """The sources by name; each brings its settings, which the experiments' schema reads in ``TASK_SOURCES``."""

    def add(self, name: str, entry: type[Source]) -> type[Source]:
        """Register a source and its settings; raises LearnerError if the name is taken."""
        super().add(name, entry)
        if TASK_SOURCES.get(name) is not entry.Config:  # else a package of 0.1 did it
            TASK_SOURCES.add(name, entry.Config)
        return entry


SOURCES = Sources("task source")


def check_split(split: str, index: int, available: int | None = None) -> None:
    """Refuse an episode that does not exist.

    Raises:
        DataError: The split has no such name, or no such episode.
    """
    if split not in SPLITS:
        raise DataError(f"no split is named '{split}' (allowed: {', '.join(SPLITS)})")
    if index < 0 or (available is not None and index >= available):
        end = "" if available is None else f" to {available - 1}"
        raise DataError(f"{split} episode {index}: episodes are numbered from 0{end}")


def check_at_least(source: str, least: int, **fields: int | float) -> None:
    """Refuse fields below ``least``, naming each one."""
    for field, value in fields.items():
        if value < least:
            raise DataError(f"tasks.{field}: {source} needs at least {least}, got {value}")


def check_fraction(source: str, **fields: float) -> None:
    """Refuse fields outside [0, 1]."""
    for field, value in fields.items():
        if not 0.0 <= value <= 1.0:
            raise DataError(f"tasks.{field}: {source} needs a fraction from 0 to 1, got {value}")


def some(names: Sequence[object], most: int = 5) -> str:
    """List the first few names, and how many more there are."""
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
