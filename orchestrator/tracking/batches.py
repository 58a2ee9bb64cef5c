"""What is to be written to the runs of one search, gathered until it is sent.

A run's key is its trial's number as text; the search's own run has the key ``PARENT``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PARENT = ""
RUNNING = "RUNNING"

Point = tuple[str, float, int, int]  # name, value, milliseconds, step


@dataclass
class Batch:
    """The unsent values of one run.

    Attributes:
        begun: If the run is to be made: the time in milliseconds.
        status: The new status, with the time of the run's end.
        files: Files and folders, each with the folder that it goes into.
        texts: Contents of small files, by name.
    """

    begun: int | None = None
    metrics: list[Point] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    status: tuple[str, int | None] | None = None
    files: list[tuple[Path, str | None]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)


class Batches:
    """The batch of each run; the values of many events are sent together."""

    def __init__(self) -> None:
        self.batches: dict[str, Batch] = {}
        self.experiment_tags: dict[str, str] = {}

    def __contains__(self, key: str) -> bool:
        return key in self.batches

    def begin(self, key: str, tags: Mapping[str, str], milliseconds: int) -> None:
        """Make the run, which begins as RUNNING."""
        batch = self._batch(key)
        batch.begun = milliseconds
        batch.tags |= tags

    def metric(self, key: str, name: str, value: float, milliseconds: int, step: int) -> None:
        """Log one value; the same value at the same time is stored once."""
        self._batch(key).metrics.append((name, float(value), milliseconds, step))

    def params(self, key: str, values: Mapping[str, str]) -> None:
        """Log parameters, which must not change later."""
        self._batch(key).params |= values

    def tag(self, key: str, name: str, value: str) -> None:
        """Set a tag."""
        self._batch(key).tags[name] = value

    def experiment_tag(self, name: str, value: str) -> None:
        """Set a tag of the experiment."""
        self.experiment_tags[name] = value

    def status(self, key: str, status: str, milliseconds: int | None = None) -> None:
        """Set the run's status, and the time of its end."""
        self._batch(key).status = (status, milliseconds)

    def upload(self, key: str, path: Path, into: str | None = None) -> None:
        """Store a file in the folder ``into``, or a folder under its own name; do nothing if it does not exist."""
        self._batch(key).files.append((path, into))

    def text(self, key: str, name: str, content: str) -> None:
        """Store a small file."""
        self._batch(key).texts[name] = content

    def _batch(self, key: str) -> Batch:
        return self.batches.setdefault(key, Batch())
