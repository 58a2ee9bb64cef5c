"""Checkpoints of a trial: two generations, each with the SHA-256 of every byte it needs.

A generation is two files. ``checkpoint-00007.safetensors`` holds the tensors;
``checkpoint-00007.json`` holds everything else and the digests, its own included,
and is put in place last: with it, the generation exists. safetensors alone would load a
flipped byte without a word. Nothing is ever unpickled.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from metaloom.learners.errors import LearnerError
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors
from metaloom.workers.durable import canonical, digest, remove_asides, write_bytes, write_files
from metaloom.workers.errors import CheckpointError
from metaloom.workers.records.names import CHECKPOINTS_FOLDER, META_KNOWLEDGE_FILE

FORMAT = 1
KNOWLEDGE_FORMAT = 2
_ENTRY = "metaloom"  # the one metadata entry of a file of knowledge: canonical JSON
_FILES = re.compile(r"checkpoint-(\d+)\.(json|safetensors)")


@dataclass(frozen=True)
class Checkpoint:
    """What was stored.

    Attributes:
        tensors: Group (``phi``, ``state`` ...) to name to tensor, on the CPU.
        facts: JSON values.
    """

    tensors: Mapping[str, Tensors]
    facts: Mapping[str, Any]


class CheckpointFolder:
    """The generations of one trial."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._good: int | None = None

    def newest(self) -> tuple[Checkpoint | None, tuple[str, ...]]:
        """Return the newest undamaged generation (None: there is none), and what was found damaged.

        Raises:
            CheckpointError: It was written in a newer format.
        """
        notes: list[str] = []
        for number in sorted(_numbers(self.folder), reverse=True):
            try:
                found = _read(self.folder, number)
            except _Damaged as damage:
                notes.append(f"checkpoint {number} is damaged ({damage})")
                continue
            self._good = number
            if notes:
                notes.append(f"went back to checkpoint {number}, at step {found.facts.get('step', '?')}")
            return found, tuple(notes)
        if notes:
            notes.append("no checkpoint is left: started again from step 0")
        return None, tuple(notes)

    def write(self, tensors: Mapping[str, Tensors], facts: Mapping[str, Any]) -> None:
        """Write the next generation, then remove all but it and the last good one before it.

        Raises:
            StorageError: It could not be written; the earlier generations are as they were.
        """
        remove_asides(self.folder)
        number = max(_numbers(self.folder), default=0) + 1
        content = to_bytes(_flat(tensors))
        manifest = {
            "format": FORMAT,
            "facts": facts,
            "names": _names(tensors),
            "files": {_tensors(number): {"sha256": digest(content), "bytes": len(content)}},
        }
        signed = {**manifest, "sha256": digest(canonical(manifest))}
        write_files(self.folder, {_tensors(number): content, _manifest(number): canonical(signed)})
        self._prune({number, self._good})
        self._good = number

    def _prune(self, kept: set[int | None]) -> None:
        for path in self.folder.iterdir():
            match = _FILES.fullmatch(path.name)
            if match and int(match[1]) not in kept:
                path.unlink(missing_ok=True)


class _Damaged(Exception):  # noqa: N818
    """A generation cannot be trusted; says why."""


def settled(tensors: Tensors) -> Tensors:
    """Copy tensors to fresh memory in their plain row-major layout.

    That is how they come back from a file. A trial that goes on after a checkpoint
    does so from settled tensors too: other strides or another alignment would choose
    other kernels, and the last bits would differ from those of a resumed trial.
    """
    return {name: _rows(one).clone() for name, one in tensors.items()}


def to_bytes(tensors: Tensors, metadata: dict[str, str] | None = None) -> bytes:
    """Serialize tensors of any device and layout as safetensors."""
    own = {name: _rows(one).cpu().clone() for name, one in tensors.items()}  # it refuses shared memory
    return bytes(safetensors.save(own, metadata))


def from_bytes(content: bytes) -> Tensors:
    """Read what ``to_bytes`` wrote, into fresh memory; raises ValueError if it is not safetensors."""
    try:
        return {name: one.clone() for name, one in safetensors.load(content).items()}
    except SafetensorError as problem:
        raise ValueError(str(problem)) from problem


def write_knowledge(path: Path, tensors: Mapping[str, Tensors], metadata: Mapping[str, str]) -> None:
    """Write groups of tensors as one safetensors file that carries its own digest; raises StorageError."""
    flat = _flat(tensors)
    unsigned = {**metadata, "format": str(KNOWLEDGE_FORMAT), "names": json.dumps(_names(tensors))}
    signed = canonical({**unsigned, "sha256": _digest_of(flat, unsigned)}).decode()
    write_bytes(path, to_bytes(flat, {_ENTRY: signed}))  # one entry: safetensors writes several in a random order


def read_knowledge(path: Path) -> tuple[dict[str, Tensors], dict[str, str]]:
    """Read what ``write_knowledge`` wrote: the groups and the metadata.

    Raises:
        CheckpointError: The file is missing, damaged, or of a newer format.
    """
    try:
        content = path.read_bytes()
        flat = from_bytes(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (OSError, ValueError) as problem:
        raise CheckpointError(f"{path}: cannot be read ({problem})") from problem
    metadata: dict[str, str] = header.get("__metadata__", {})
    if _ENTRY in metadata:  # format 1 has an entry for each fact
        metadata = json.loads(metadata[_ENTRY])
    claimed = metadata.pop("sha256", None)
    if _digest_of(flat, metadata) != claimed:
        raise CheckpointError(f"{path}: does not have the digest it was written with")
    if int(metadata["format"]) > KNOWLEDGE_FORMAT:
        raise CheckpointError(f"{path}: format {metadata['format']}; this metaloom reads up to {KNOWLEDGE_FORMAT}")
    return _grouped(flat, json.loads(metadata["names"])), metadata


@dataclass(frozen=True)
class Knowledge:
    """What a trial has learned.

    Attributes:
        phi: Meta-knowledge, on the CPU.
        state: The learner's state, on the CPU.
        step: Outer steps it took.
        notes: What was found damaged on the way.
    """

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

    def groups(self) -> dict[str, Tensors]:
        """Return what files hold of it."""
        return {"phi": self.phi, "state": self.state.flat()}


def load_knowledge(directory: Path) -> Knowledge:
    """Read what the trial in ``directory`` has learned: at its end, or up to its newest checkpoint.

    Raises:
        CheckpointError: There is nothing that can be trusted.
    """
    path, notes = directory / META_KNOWLEDGE_FILE, []
    if path.exists():
        try:
            groups, metadata = read_knowledge(path)
            return Knowledge.of(groups, metadata["step"])
        except CheckpointError as problem:
            notes.append(str(problem))
    found, damage = CheckpointFolder(directory / CHECKPOINTS_FOLDER).newest()
    notes.extend(damage)
    if found is None:
        raise CheckpointError(f"{directory}: nothing was learned here yet{''.join('; ' + one for one in notes)}")
    kept = "best_" if any(group.startswith("best_") for group in found.tensors) else ""
    step = found.facts["best"]["step"] if kept else found.facts["step"]
    return Knowledge.of({one: found.tensors.get(kept + one, {}) for one in ("phi", "state")}, step, tuple(notes))


def check_same_leaves(expected: Tensors, found: Tensors, where: Path) -> None:
    """Refuse the phi of another learner; raises CheckpointError."""
    odd = different_leaves(expected, found)
    if odd:
        raise CheckpointError(f"{where}: what is stored is of another learner: {', '.join(odd[:5])} differ in shape")


def different_leaves(expected: Tensors, found: Tensors) -> list[str]:
    """Return the names that are missing on one side, or of another shape."""
    shapes = {name: tuple(one.shape) for name, one in expected.items()}
    stored = {name: tuple(one.shape) for name, one in found.items()}
    return sorted(name for name in shapes.keys() | stored.keys() if shapes.get(name) != stored.get(name))


def _flat(tensors: Mapping[str, Tensors]) -> Tensors:
    return {f"{group}/{name}": one for group, part in tensors.items() for name, one in part.items()}


def _names(tensors: Mapping[str, Tensors]) -> dict[str, list[str]]:
    """Return the order of each group's names, which safetensors does not keep: a sum's last bit depends on it."""
    return {group: list(part) for group, part in tensors.items()}


def _grouped(flat: Tensors, names: Mapping[str, list[str]]) -> dict[str, Tensors]:
    return {group: {name: flat[f"{group}/{name}"] for name in part} for group, part in names.items()}


def _digest_of(flat: Tensors, metadata: Mapping[str, str]) -> str:
    return digest(canonical(metadata) + to_bytes(flat))


def _rows(tensor: Tensor) -> Tensor:
    """Return a row-major view or copy; reshaped, as a dimension of size 1 may hide odd strides."""
    shape = tensor.shape
    return tensor.detach().contiguous(memory_format=torch.contiguous_format).reshape(-1).view(shape)


def _read(folder: Path, number: int) -> Checkpoint:
    """Read one generation; raises _Damaged or CheckpointError."""
    manifest = _read_manifest(folder / _manifest(number))
    content = _content(folder / _tensors(number))
    expected = manifest["files"].get(_tensors(number), {})
    if len(content) != expected.get("bytes"):
        raise _Damaged(f"{len(content)} bytes of tensors instead of {expected.get('bytes')}")
    if digest(content) != expected.get("sha256"):
        raise _Damaged("its tensors do not have the digest they were written with")
    return Checkpoint(_grouped(from_bytes(content), manifest["names"]), manifest["facts"])


def _read_manifest(path: Path) -> dict[str, Any]:
    content = _content(path)
    try:
        manifest = json.loads(content)
    except ValueError as problem:
        raise _Damaged("its manifest is not JSON") from problem
    if not isinstance(manifest, dict):
        raise _Damaged("its manifest is not a JSON object")
    as_written = canonical(manifest) == content  # another spelling of the same values is damage too
    claimed = manifest.pop("sha256", None)
    if not as_written or digest(canonical(manifest)) != claimed:
        raise _Damaged("its manifest does not have the digest it was written with")
    if manifest["format"] > FORMAT:
        raise CheckpointError(f"{path}: checkpoint format {manifest['format']}; this metaloom reads up to {FORMAT}")
    return manifest


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as problem:
        raise _Damaged(f"{path.name} is missing") from problem


def _numbers(folder: Path) -> set[int]:
    """Return every generation that has left a file: a lost manifest is damage too."""
    if not folder.is_dir():
        return set()
    matches = (_FILES.fullmatch(path.name) for path in folder.iterdir())
    return {int(match[1]) for match in matches if match}


def _tensors(number: int) -> str:
    return f"checkpoint-{number:05d}.safetensors"


def _manifest(number: int) -> str:
    return f"checkpoint-{number:05d}.json"
