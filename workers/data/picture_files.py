"""Finds a user's image files in class folders, and reads them: microseconds a file to find, in threads to read."""

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from metaloom.workers.activity import doing
from metaloom.workers.data.base import DataError
from metaloom.workers.data.user_files import ENDINGS, is_hidden, read_picture

TELL_S = 5.0  # between two lines about how far the reading is
CHUNK = 64  # files that a thread reads at a time
_LOG = logging.getLogger("metaloom.data")


class Pictures(Sequence[Path]):
    """The image files of one folder, in name order.

    A ``Path`` is made when it is asked for: 60,000 of them take longer than finding the files.

    Args:
        folder: The folder.
        found: Name, size in bytes and time of change in ns of each file.

    Attributes:
        names: The files' names.
        facts: A digest of folder, names, sizes and times: it tells one version of the files from the next.
    """

    def __init__(self, folder: Path, found: Sequence[tuple[str, int, int]]) -> None:
        self.folder, self.names, self._found = folder, tuple(name for name, _, _ in found), found
        self.facts = hashlib.sha256(f"{folder.resolve()}\n{found}".encode(errors="surrogateescape")).hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, place: int) -> Path: ...
    @overload
    def __getitem__(self, place: slice) -> list[Path]: ...
    def __getitem__(self, place: int | slice) -> Path | list[Path]:
        if isinstance(place, slice):
            return [self.folder / name for name in self.names[place]]
        return self.folder / self.names[place]

    def named(self, begin: str) -> "Pictures":
        """Return those whose names begin so."""
        return Pictures(self.folder, [one for one in self._found if one[0].startswith(begin)])

    def texts(self) -> Iterator[str]:
        """Yield the files' paths as text."""
        return (f"{self.folder}{os.sep}{name}" for name in self.names)


def class_files(folder: Path, *, may_be_empty: bool = False) -> dict[str, Pictures]:
    """Return the image files of each class folder, both in name order; ``may_be_empty`` keeps classes without any.

    Raises DataError if there is no such folder, no class folder in it, or no image in one of those.
    """
    if not folder.is_dir():
        raise DataError(f"tasks.path: there is no folder {folder}")
    with os.scandir(folder) as entries:
        classes = sorted(entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name))
    if not classes:
        raise DataError(f"tasks.path: {folder} has no class folders (one folder per class, its images inside)")
    files = {name: pictures_of(folder / name) for name in classes}
    empty = [name for name, images in files.items() if not images]
    if empty and (not may_be_empty or len(empty) == len(files)):
        raise DataError(f"tasks.path: no {', '.join(ENDINGS)} file in {folder / empty[0]} ({len(empty)} such folders)")
    return files


def pictures_of(folder: Path) -> Pictures:
    """Return the image files directly in a folder."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lower().endswith(ENDINGS) and not is_hidden(entry.name) and entry.is_file():
                state = entry.stat()
                found.append((entry.name, state.st_size, state.st_mtime_ns))
    return Pictures(folder, sorted(found))


def read_all(
    files: Mapping[str, Pictures], *, size: int, color: bool
) -> Iterator[tuple[str, Path, NDArray[np.uint8] | DataError]]:
    """Yield class, file, and image or why it cannot be read, in the order of ``files``; tell how far it is.

    Args:
        size: Side in pixels.
        color: Three channels instead of one.
    """

    def read(paths: Sequence[Path]) -> list[NDArray[np.uint8] | DataError]:
        return [_read(path, size=size, color=color) for path in paths]

    pairs = [(name, path) for name, paths in files.items() for path in paths]
    chunks = [[path for _, path in pairs[start : start + CHUNK]] for start in range(0, len(pairs), CHUNK)]
    done, told = 0, time.monotonic()
    reading = doing("reading the images", total=len(pairs), noun="images")
    with reading as activity, ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        for chunk in threads.map(read, chunks):
            for image in chunk:
                yield *pairs[done], image
                done += 1
            activity.done = done
            if time.monotonic() - told >= TELL_S:
                told = time.monotonic()
                _LOG.info("%d of %d images are read", done, len(pairs))


def _read(path: Path, *, size: int, color: bool) -> NDArray[np.uint8] | DataError:
    try:
        return read_picture(path, size=size, color=color, where=str(path))
    except DataError as error:
        return error
