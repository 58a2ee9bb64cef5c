"""Checkpoints of a trial: two generations, each with the SHA-256 of every byte it needs.

A generation is two files. ``checkpoint-00007.safetensors`` holds the tensors; ``checkpoint-00007.json`` holds
everything else and the digests, including its own, and is put in place last: with it, the generation exists.
safetensors alone would load a flipped byte without an error. Nothing is ever unpickled.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from metaloom.learners.errors import LearnerError, shown
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors
from metaloom.workers import durable
from metaloom.workers.durable import canonical, digest
from metaloom.workers.errors import CheckpointError
from metaloom.workers.records.names import CHECKPOINTS_FOLDER, KNOWLEDGE_ENTRY, META_KNOWLEDGE_FILE

FORMAT = 1
KNOWLEDGE_FORMAT = 2
MOST_HEADER_BYTES = 32 << 20  # some 100 bytes a tensor
_FILES = re.compile(r"checkpoint-(\d+)\.(json|safetensors)")


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a generation: tensors on the CPU by group (``phi``, ``state`` ...) and name, and JSON values."""

    tensors: Mapping[str, Tensors]
    facts: Mapping[str, Any]


class CheckpointFolder:
    """The generations of one trial."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._good: int | None = None

    def newest(self) -> tuple[Checkpoint | None, tuple[str, ...]]:
        """Return the newest undamaged generation (None if there is none), and notes on the damaged ones.

        Raises CheckpointError if it was written in a newer format.
        """
        notes: list[str] = []
        for number in sorted(set(self._files().values()), reverse=True):
            try:
                checkpoint = _read(*self._paths(number))
            except _Damaged as damage:
                notes.append(f"checkpoint {number} is damaged ({damage})")
                continue
            self._good = number
            if notes:
                notes.append(f"went back to checkpoint {number}, at step {checkpoint.facts.get('step', '?')}")
            return checkpoint, tuple(notes)
        if notes:
            notes.append("no checkpoint is left: started again from step 0")
        return None, tuple(notes)

    def write(
        self, tensors: Mapping[str, Tensors], facts: Mapping[str, Any], *, first: Callable[[], None] = lambda: None
    ) -> None:
        """Write the next generation, then remove all others but the last good one before it; raises StorageError.

        ``first`` waits for what must be on the disk before the generation is. On an error the earlier ones stay.
        """
        durable.remove_asides(self.folder)
        number = max(self._files().values(), default=0) + 1
        (manifest, stored), content = self._paths(number), _to_bytes(_flat(tensors))
        files = {stored.name: durable.file_facts(content)}
        document = durable.signed({"format": FORMAT, "facts": facts, "names": _names(tensors), "files": files})
        durable.write_files(self.folder, {stored.name: content, manifest.name: canonical(document)}, first=first)
        for path, other in self._files().items():
            if other not in (number, self._good):
                path.unlink(missing_ok=True)
        self._good = number

    def _files(self) -> dict[Path, int]:
        """Return each file with its generation's number, also without a manifest: a lost manifest is damage too."""
        if not self.folder.is_dir():
            return {}
        matches = ((path, _FILES.fullmatch(path.name)) for path in self.folder.iterdir())
        return {path: int(match[1]) for path, match in matches if match}

    def _paths(self, number: int) -> tuple[Path, Path]:
        name = f"checkpoint-{number:05d}"
        return self.folder / f"{name}.json", self.folder / f"{name}.safetensors"


class _Damaged(Exception):  # noqa: N818
    """A generation is damaged; the message says how."""


def settled(tensors: Tensors) -> Tensors:
    """Copy tensors to fresh memory in row-major layout, as they come back from a file.

    A trial that goes on after a checkpoint does so from settled tensors too: other strides or another alignment would
    choose other kernels, and the last bits would differ from those of a resumed trial.
    """
    return {name: _rows(one).clone() for name, one in tensors.items()}


def write_knowledge(path: Path, tensors: Mapping[str, Tensors], metadata: Mapping[str, str]) -> None:
    """Write groups of tensors as one safetensors file that carries its own digest; raises StorageError."""
    durable.write_bytes(path, knowledge_bytes(tensors, metadata))


def knowledge_bytes(tensors: Mapping[str, Tensors], metadata: Mapping[str, str]) -> bytes:
    """Return the content of such a file."""
    flat = _flat(tensors)
    unsigned = {**metadata, "format": str(KNOWLEDGE_FORMAT), "names": json.dumps(_names(tensors))}
    signed = canonical({**unsigned, "sha256": digest(canonical(unsigned) + _to_bytes(flat))}).decode()
    return _to_bytes(flat, {KNOWLEDGE_ENTRY: signed})  # safetensors writes several entries in a random order


def read_knowledge(path: Path) -> tuple[dict[str, Tensors], dict[str, str]]:
    """Read the groups and the metadata that ``write_knowledge`` wrote.

    Raises CheckpointError if the file is missing, damaged, or of a newer format.
    """
    check_header(path)
    try:
        content = path.read_bytes()
        flat = _from_bytes(content)
        metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
        if KNOWLEDGE_ENTRY in metadata:  # format 1 has an entry for each fact
            metadata = json.loads(metadata[KNOWLEDGE_ENTRY])
    except (OSError, ValueError, RecursionError) as problem:
        raise CheckpointError(f"{path}: cannot be read ({problem})") from problem
    if not isinstance(metadata, dict) or not all(isinstance(one, str) for one in metadata.values()):
        raise CheckpointError(f"{path}: its facts are no texts")
    if metadata.pop("sha256", None) != digest(canonical(metadata) + _to_bytes(flat)):
        raise CheckpointError(f"{path}: does not have the digest it was written with")
    for name in ("format", "step"):
        if not metadata.get(name, "").isdecimal():
            raise CheckpointError(f"{path}: {name}: got {shown(metadata.get(name))}; allowed: a whole number")
    if int(metadata["format"]) > KNOWLEDGE_FORMAT:
        raise CheckpointError(f"{path}: format {metadata['format']}; this metaloom reads up to {KNOWLEDGE_FORMAT}")
    try:
        return _grouped(flat, json.loads(metadata["names"])), metadata
    except (KeyError, ValueError, RecursionError) as problem:
        raise CheckpointError(f"{path}: names: they are not those of its tensors ({problem})") from problem


def check_header(path: Path) -> None:
    """Refuse a safetensors file whose header cannot be one, before any of it is read; raises CheckpointError."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            state, length = os.fstat(file.fileno()), int.from_bytes(file.read(8), "little")
    except OSError as problem:
        raise CheckpointError(f"{path}: cannot be read ({problem.strerror})") from problem
    most = min(MOST_HEADER_BYTES, state.st_size - 8)
    if not stat.S_ISREG(state.st_mode) or length > most:
        raise CheckpointError(f"{path}: cannot be read (its header has {length} bytes; allowed: up to {max(most, 0)})")


@dataclass(frozen=True)
class Knowledge:
    """What a trial has learned in ``step`` outer steps, on the CPU, with notes on the damage found in reading it."""

    phi: Tensors
    state: LearnerState
    step: int
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, groups: Mapping[str, Tensors], step: int | str, notes: tuple[str, ...] = ()) -> "Knowledge":
        """Read stored groups; raises CheckpointError for a state that no learner of this version has."""
        try:
            return cls(groups.get("phi", {}), LearnerState.from_flat(groups.get("state", {})), int(step), notes)
        except LearnerError as problem:
            raise CheckpointError(str(problem)) from problem

    @classmethod
    def read(cls, path: Path) -> "Knowledge":
        """Read a file of knowledge; raises CheckpointError if it is missing, damaged, or of a newer format."""
        groups, metadata = read_knowledge(path)
        return cls.of(groups, metadata["step"])

    def groups(self) -> dict[str, Tensors]:
        """Return the groups of tensors that files hold."""
        return {"phi": self.phi, "state": self.state.flat()}


def load_knowledge(directory: Path) -> Knowledge:
    """Read what the trial in ``directory`` has learned: at its end, or up to its newest checkpoint.

    Raises CheckpointError if there is no undamaged file.
    """
    path, notes = directory / META_KNOWLEDGE_FILE, []
    if path.exists():
        try:
            return Knowledge.read(path)
        except CheckpointError as problem:
            notes.append(str(problem))
    checkpoint, damage = CheckpointFolder(directory / CHECKPOINTS_FOLDER).newest()
    notes.extend(damage)
    if checkpoint is None:
        raise CheckpointError(f"{directory}: nothing was learned here yet{''.join('; ' + one for one in notes)}")
    kept = "best_" if any(group.startswith("best_") for group in checkpoint.tensors) else ""
    step = checkpoint.facts["best"]["step"] if kept else checkpoint.facts["step"]
    return Knowledge.of({one: checkpoint.tensors.get(kept + one, {}) for one in ("phi", "state")}, step, tuple(notes))


def different_leaves(expected: Tensors, stored: Tensors) -> list[str]:
    """Return the names that are missing on one side, or of another shape."""
    ours, theirs = ({name: tuple(one.shape) for name, one in leaves.items()} for leaves in (expected, stored))
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def _to_bytes(tensors: Tensors, metadata: dict[str, str] | None = None) -> bytes:
    """Serialize tensors of any device and layout as safetensors."""
    own = {name: _rows(one).cpu().clone() for name, one in tensors.items()}  # it refuses shared memory
    return bytes(safetensors.save(own, metadata))


def _from_bytes(content: bytes) -> Tensors:
    """Read safetensors into fresh memory; raises ValueError."""
    try:
        return {name: one.clone() for name, one in safetensors.load(content).items()}
    except SafetensorError as problem:
        raise ValueError(str(problem)) from problem


def _flat(tensors: Mapping[str, Tensors]) -> Tensors:
    return {f"{group}/{name}": one for group, part in tensors.items() for name, one in part.items()}


def _names(tensors: Mapping[str, Tensors]) -> dict[str, list[str]]:
    """Return the order of each group's names, which safetensors does not keep: a sum's last bit depends on it."""
    return {group: list(part) for group, part in tensors.items()}


def _grouped(flat: Tensors, names: Any) -> dict[str, Tensors]:
    """Return the tensors by group, in the order of ``names``; raises ValueError or KeyError if they do not fit."""
    if not isinstance(names, dict) or not all(isinstance(part, list) for part in names.values()):
        raise ValueError("a mapping of groups to lists of names is needed")
    if sum(map(len, names.values())) != len(flat):
        raise ValueError(f"{sum(map(len, names.values()))} names for {len(flat)} tensors")
    return {group: {name: flat[f"{group}/{name}"] for name in part} for group, part in names.items()}


def _rows(tensor: Tensor) -> Tensor:
    """Return a row-major view or copy; reshaped, as a dimension of size 1 may hide odd strides."""
    shape = tensor.shape
    return tensor.detach().contiguous(memory_format=torch.contiguous_format).reshape(-1).view(shape)


def _read(manifest_path: Path, stored: Path) -> Checkpoint:
    """Read one generation; raises _Damaged or CheckpointError."""
    manifest, content = _read_manifest(manifest_path), _content(stored)
    expected = manifest["files"].get(stored.name)
    if not isinstance(expected, dict):
        raise _Damaged("its manifest does not name its tensors")
    if len(content) != expected.get("bytes"):
        raise _Damaged(f"{len(content)} bytes of tensors instead of {expected.get('bytes')}")
    if digest(content) != expected.get("sha256"):
        raise _Damaged("its tensors do not have the digest they were written with")
    try:
        return Checkpoint(_grouped(_from_bytes(content), manifest["names"]), manifest["facts"])
    except (KeyError, ValueError) as problem:
        raise _Damaged(f"its names are not those of its tensors: {problem}") from problem


def _read_manifest(path: Path) -> dict[str, Any]:
    content = _content(path)
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise _Damaged("its manifest is not JSON") from problem
    if not isinstance(manifest, dict):
        raise _Damaged("its manifest is not a JSON object")
    as_written = canonical(manifest) == content  # another spelling of the same values is damage too
    if not durable.is_signed(manifest) or not as_written:
        raise _Damaged("its manifest does not have the digest it was written with")
    kinds = {"format": int, "facts": dict, "names": dict, "files": dict}
    if odd := [name for name, kind in kinds.items() if not isinstance(manifest.get(name), kind)]:
        raise _Damaged(f"its manifest has no {' and no '.join(odd)} that can be one")
    if manifest["format"] > FORMAT:
        raise CheckpointError(f"{path}: checkpoint format {manifest['format']}; this metaloom reads up to {FORMAT}")
    return manifest


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as problem:
        raise _Damaged(f"{path.name} is missing") from problem
