"""The records of a stage: its facts when it is finished, and how far a trial is with one that is not."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaloom.workers.durable import is_signed, signed, storage_error, write_text
from metaloom.workers.records import names
from metaloom.workers.records.trial import Plain

STAGE_TRIAL = -1_000_000  # the number of a stage's own training: of no trial, and of no baseline


@dataclass(frozen=True)
class StageRecord(Plain):
    """A stage from which a trial has started.

    Attributes:
        name: As the experiment calls it.
        digest: Of all that decides its result; the name of its folder.
        method: That trained it.
        source: Of its tasks.
        metric: That it was validated by, with its ``value`` and its 95% ``interval``.
        steps: Outer steps done.
        seconds: That its training took, all attempts together.
        starts: The names of the stages that it starts from, each with its digest.
        reused: Whether the trial found it finished.
    """

    name: str
    digest: str
    method: str
    source: str
    metric: str
    value: float
    interval: tuple[float, float]
    steps: int
    seconds: float
    starts: Mapping[str, str]
    reused: bool = False

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "StageRecord":
        """Read the values of ``to_json``; raises TypeError if a field is missing or unknown."""
        low, high = document["interval"]
        return cls(**{**document, "interval": (float(low), float(high))})


def write_stage(directory: Path, record: StageRecord) -> None:
    """Write the facts of a finished stage; raises StorageError."""
    write_text(directory / names.STAGE_FILE, json.dumps(signed(record.to_json()), indent=2) + "\n")


def read_stage(directory: Path) -> StageRecord | None:
    """Return the facts of the stage in a folder; None if it is not finished, or they are damaged."""
    try:
        document = json.loads((directory / names.STAGE_FILE).read_text())
        return StageRecord.from_json(document) if is_signed(document) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


@dataclass(frozen=True)
class AtStage(Plain):
    """What a trial is at before its own training.

    Attributes:
        name: Of the stage.
        step: Outer steps done.
        steps: Outer steps asked for.
        waits: Whether another process trains it.
        seconds: That its training took up to its last checkpoint, all attempts together.
    """

    name: str
    step: int
    steps: int
    waits: bool = False
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """Say it in one line."""
        if self.waits:
            return f"stage {self.name}: another trial trains it"
        return f"stage {self.name}: {self.step:,}/{self.steps:,} outer steps"


def note_at_stage(directory: Path, at: AtStage) -> None:
    """Note what the trial in ``directory`` is at, not durably: a resume notes it again. Raises StorageError."""
    path, aside = directory / names.AT_STAGE_FILE, directory / f"{names.AT_STAGE_FILE}.new"
    try:
        aside.write_text(json.dumps(at.to_json()))
        aside.replace(path)
    except OSError as problem:
        raise storage_error(path, problem) from problem


def at_stage(directory: Path) -> AtStage | None:
    """Return what the trial in ``directory`` is at; None while it is at no stage."""
    try:
        return AtStage(**json.loads((directory / names.AT_STAGE_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def note_needed(directory: Path, digests: Mapping[str, str]) -> None:
    """Note the digests of the stages that the trial in ``directory`` has asked for, by name; raises StorageError."""
    write_text(directory / names.NEEDED_STAGES_FILE, json.dumps(dict(digests)))


def needed_digests(directory: Path) -> dict[str, str]:
    """Return the digests of the stages that the trial in ``directory`` has asked for, by name."""
    try:
        document = json.loads((directory / names.NEEDED_STAGES_FILE).read_text())
        return {str(name): str(digest) for name, digest in document.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def stage_directories(store: Path) -> Iterator[tuple[str, Path]]:
    """Yield the digest and the folder of each stage of a store, finished or not."""
    for path in sorted((store / names.STAGES_FOLDER).glob("*")):
        if path.is_dir() and not path.name.startswith("."):
            yield path.name, path
