"""The checkpoints of a trial by their manifests, without their tensors: no torch is imported."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaloom.workers.durable import is_signed
from metaloom.workers.records import names as records


@dataclass(frozen=True)
class CheckpointRow:
    """A checkpoint.

    Attributes:
        file: Of its manifest.
        step: Outer steps done; None where the manifest is damaged.
        kept_step: Of the meta-knowledge that has validated best, where the trial keeps that too.
        size: Bytes of its tensors.
        time: When it was written.
        learned: The names of what is learned.
    """

    file: str
    step: int | None
    kept_step: int | None
    size: int
    time: float
    learned: tuple[str, ...]


def checkpoint_rows(directory: Path) -> tuple[CheckpointRow, ...]:
    """Return a trial's checkpoints, the newest first."""
    found = sorted((directory / records.CHECKPOINTS_FOLDER).glob("checkpoint-*.json"), reverse=True)
    return tuple(row for path in found if (row := _row(path)) is not None)


def learned_names(directory: Path) -> tuple[str, ...]:
    """Return the names of what a trial learns, by its newest whole checkpoint; none before its first."""
    return next((row.learned for row in checkpoint_rows(directory) if row.step is not None), ())


def _row(path: Path) -> CheckpointRow | None:
    """Return the row of a manifest; None if a trial that runs has just removed it."""
    try:
        written, content = path.stat().st_mtime, path.read_bytes()
        size = path.with_suffix(".safetensors").stat().st_size
    except FileNotFoundError:
        return None
    facts, names = _parts_of(content)
    best = facts.get("best")
    kept = best["step"] if best and any(group.startswith("best_") for group in names) else None
    return CheckpointRow(path.name, facts.get("step"), kept, size, written, tuple(names.get("phi", ())))


def _parts_of(content: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the facts and the names in a manifest; nothing of a damaged one."""
    try:
        manifest = json.loads(content)
        return (manifest["facts"], manifest["names"]) if is_signed(manifest) else ({}, {})
    except (ValueError, KeyError, TypeError):
        return {}, {}
