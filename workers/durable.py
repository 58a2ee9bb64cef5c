"""Files that are whole or absent even after a power failure, and documents that carry their own digest.

A file is written aside, synced and renamed; then its folder is synced, because the rename may be lost otherwise.
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from metaloom.workers.errors import StorageError

ASIDE = ".aside-"  # a leading dot: pyarrow's dataset discovery ignores such files
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, and move the file to ``path`` in one step; raises StorageError.

    If anything fails, the temporary file is removed and ``path`` is unchanged.
    """
    with _asides([path]) as (aside,):
        yield aside


def write_files(
    folder: Path, contents: Mapping[str, bytes], *, first: Callable[[], None] = lambda: None, synced: bool = True
) -> None:
    """Write several files of one folder durably, waiting for the folder once; raises StorageError.

    All are written before the first is renamed, so that a full disk changes nothing. They are renamed in the order
    given, after ``first``, which waits for what must be on the disk before them. Files that are not ``synced`` are
    whole or absent too, except after a power failure.
    """
    with _asides([folder / name for name in contents], first, synced=synced) as asides:
        for aside, content in zip(asides, contents.values(), strict=True):
            aside.write_bytes(content)


@contextlib.contextmanager
def _asides(
    paths: list[Path], first: Callable[[], None] = lambda: None, *, synced: bool = True
) -> Iterator[list[Path]]:
    """Give a temporary path for each path of one folder; rename them all at the end, after ``first``."""
    asides = [path.with_name(f"{ASIDE}{os.getpid()}-{path.name}") for path in paths]
    folder = paths[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield asides
        for aside in asides if synced else ():
            sync(aside)
        first()
        for aside, path in zip(asides, paths, strict=True):
            aside.replace(path)
        if synced:
            sync(folder)
    except OSError as problem:
        raise storage_error(paths[0], problem) from problem
    finally:
        for aside in asides:
            with contextlib.suppress(OSError):  # it has been renamed, or was never written
                aside.unlink()


def write_bytes(path: Path, content: bytes, *, synced: bool = True) -> None:
    """Write a whole file, durably where it is ``synced``; raises StorageError."""
    write_files(path.parent, {path.name: content}, synced=synced)


def write_text(path: Path, content: str) -> None:
    """Write a whole UTF-8 file durably; raises StorageError."""
    write_bytes(path, content.encode())


def sync(path: Path) -> None:
    """Wait until a file or folder has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_asides(folder: Path) -> None:
    """Remove the temporary files that a killed process left in ``folder``, if it exists."""
    for left in folder.glob(f"{ASIDE}*"):
        left.unlink(missing_ok=True)


def is_full(problem: OSError) -> bool:
    """Return whether the disk, a quota or a limit on a file's size left no room."""
    return problem.errno in _FULL


def storage_error(path: Path, problem: OSError) -> StorageError:
    """Return the error that names the file, the reason, and what to do."""
    if is_full(problem):
        return StorageError(
            f"{path}: no room to write ({os.strerror(problem.errno or 0)}); what was written before is intact: "
            "free some space"
        )
    return StorageError(f"{path}: cannot be written ({problem.strerror or problem})")


def digest(content: bytes) -> str:
    """Return the SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def canonical(document: Mapping[str, Any]) -> bytes:
    """Return the canonical JSON text of ``document``, of which digests are taken."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def file_facts(content: bytes) -> dict[str, Any]:
    """Return the digest and the size of a file's content, as manifests record them."""
    return {"sha256": digest(content), "bytes": len(content)}


def facts_of_file(path: Path) -> dict[str, Any]:
    """Return the digest and the size of a regular file, read piece by piece; raises OSError for a symbolic link."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": file.tell()}


def signed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with its own digest."""
    return {**document, "sha256": digest(canonical(document))}


def is_signed(document: dict[str, Any]) -> bool:
    """Remove the digest from a document, and return whether it is the document's."""
    claimed = document.pop("sha256", None)
    return bool(claimed == digest(canonical(document)))
