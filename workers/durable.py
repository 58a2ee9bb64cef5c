"""Files that are whole or absent, whatever moment the power goes.

A file is written aside, synced and renamed; then its folder is synced, without
which a rename may be lost.
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metaloom.workers.errors import StorageError

ASIDE = ".aside-"  # a leading dot: pyarrow's dataset discovery passes over such files
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a path to write to, and put what was written in the place of ``path`` at once.

    If anything fails, what was written is removed and ``path`` stays as it was.

    Raises:
        StorageError: The disk is full or cannot be written.
    """
    aside = path.with_name(f"{ASIDE}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        sync(aside)
        aside.replace(path)
        sync(path.parent)
    except OSError as problem:
        raise storage_error(path, problem) from problem
    finally:
        with contextlib.suppress(OSError):  # it has been renamed, or never came to be
            aside.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file durably; raises StorageError."""
    write_files(path.parent, {path.name: content})


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write several files of one folder durably, waiting for the folder once.

    All are written before the first is put in its place, so that a disk that fills up
    changes nothing. They are put in their places in the order given.

    Raises:
        StorageError: The disk is full or cannot be written.
    """
    asides = {name: folder / f"{ASIDE}{os.getpid()}-{name}" for name in contents}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, aside in asides.items():
            aside.write_bytes(contents[name])
            sync(aside)
        for name, aside in asides.items():
            aside.replace(folder / name)
        sync(folder)
    except OSError as problem:
        raise storage_error(folder / next(iter(contents)), problem) from problem
    finally:
        for aside in asides.values():
            with contextlib.suppress(OSError):  # it has been renamed, or never came to be
                aside.unlink()


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
    """Remove what a killed process left half written in ``folder``, if it exists."""
    for left in folder.glob(f"{ASIDE}*"):
        left.unlink(missing_ok=True)


def storage_error(path: Path, problem: OSError) -> StorageError:
    """Say what could not be written, why, and what to do."""
    if problem.errno in _FULL:
        return StorageError(
            f"{path}: no room to write ({os.strerror(problem.errno or 0)}); what was written before is intact: "
            "free some space"
        )
    return StorageError(f"{path}: cannot be written ({problem.strerror or problem})")


def digest(content: bytes) -> str:
    """Return the SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def canonical(document: Mapping[str, Any]) -> bytes:
    """Return the one JSON text of ``document`` that digests are taken of."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
