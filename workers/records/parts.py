"""Whether the episode parts of a search are as they were written, by the digests in its journal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaloom.workers.durable import file_facts
from metaloom.workers.records import names
from metaloom.workers.records.search import SearchRecord, TrialRecord

MISSING = "the file is missing"


@dataclass(frozen=True)
class DamagedPart:
    """A part whose rows cannot be relied on.

    Attributes:
        trial: Its trial's number.
        path: Its file.
        reason: How it is damaged.
    """

    trial: int
    path: Path
    reason: str

    def __str__(self) -> str:
        return f"the episodes of trial {self.trial} in {self.path.name} cannot be shown: {self.reason}"


def check_parts(folder: Path, search: SearchRecord | None = None) -> list[DamagedPart]:
    """Return the damaged and missing parts of the search in ``folder``, also those that the journal does not know.

    Args:
        folder: The search's.
        search: Its record; None reads its journal.

    Raises:
        RecordsError: The journal cannot be read.
    """
    search = search or SearchRecord.read(folder)
    found = []
    for number, directory in names.trial_directories(folder).items():
        trial = search.trials.get(number) or TrialRecord(number)
        found += damaged_parts(directory, trial)
        others = (path for path in names.parts_of(directory / names.EPISODES_FOLDER) if path.name not in trial.parts)
        found += unreadable_parts(number, list(others))
    return found


def damaged_parts(directory: Path, trial: TrialRecord) -> list[DamagedPart]:
    """Return the parts of a trial that are not as its journal has them."""
    folder = directory / names.EPISODES_FOLDER
    judged = ((folder / name, _damage(folder / name, facts)) for name, facts in trial.parts.items())
    return [DamagedPart(trial.number, path, reason) for path, reason in judged if reason]


def unreadable_parts(trial: int, paths: Sequence[Path]) -> list[DamagedPart]:
    """Return the parts that cannot be read, of which no digest is known: of earlier versions, and of tests."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    found = []
    for path in paths:
        try:
            parquet.read_table(str(path), page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            found.append(DamagedPart(trial, path, f"it is no whole Parquet file ({str(error).splitlines()[0]})"))
    return found


def _damage(path: Path, facts: Mapping[str, Any]) -> str:
    """Return how a file differs from its facts; empty if it does not."""
    try:
        return damage_of(path.read_bytes(), facts)
    except FileNotFoundError:
        return MISSING


def damage_of(content: bytes, facts: Mapping[str, Any]) -> str:
    """Return how a part's content differs from its facts in the journal; empty if it does not."""
    now = file_facts(content)
    if now["bytes"] != facts["bytes"]:
        return f"it has {now['bytes']} bytes instead of {facts['bytes']}"
    return "" if now["sha256"] == facts["sha256"] else "its bytes do not have the digest that they were written with"
