"""Arrays kept as one Arrow file and memory-mapped, so that all workers of a node share one copy.

A file holds named arrays of equal length, each as a column of fixed-size binary
values in a single record batch; dtype, row shape, checksums and a JSON document
(class names, splits) are the schema's metadata. Opened arrays are read-only
views of the mapped pages: nothing is copied until an episode gathers its rows.
"""

import hashlib
import json
import logging
import os
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import NDArray

from metaloom.workers.data.base import CacheError

FORMAT = 1
_LOG = logging.getLogger("metaloom.data")
_VERIFIED: set[tuple[str, int, int, int]] = set()


class DamagedStoreError(Exception):
    """A store file is not what was written; its message says how. ``cached`` rebuilds it."""


@dataclass(frozen=True)
class Arrays:
    """Named arrays of equal length, and a JSON document about them.

    Attributes:
        columns: The arrays by name.
        about: The document.
        digest: Of all that is in the file they were opened from; empty before.
    """

    columns: Mapping[str, NDArray[Any]]
    about: dict[str, Any]
    digest: str = ""

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]


def cached(cache: Path, name: str, key: Mapping[str, Any], build: Callable[[], Arrays]) -> Arrays:
    """Open the arrays that ``key`` describes; build them first if they are absent or damaged.

    Only one process of a machine builds; the others wait for it. The file appears
    under its name only when it is whole (written aside, synced, renamed).

    Args:
        cache: Folder of the cache; made if absent.
        name: Source name, the file's first part.
        key: All that the built arrays depend on; JSON-able.
        build: Makes the arrays; what it raises passes through and leaves nothing behind.

    Raises:
        CacheError: The folder cannot be written or the file not read.
    """
    digest = hashlib.sha256(json.dumps({"format": FORMAT, **key}, sort_keys=True).encode()).hexdigest()[:16]
    path = cache / f"{name}-{digest}.arrow"
    try:
        found = _open_if_whole(path)
        if found is not None:
            return found
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            found = _open_if_whole(path)  # another process may have built it while this one waited
            if found is not None:
                return found
            _LOG.info("building the data cache of %s", name)
            write_arrays(path, build())
            return open_arrays(path)
    except OSError as error:
        raise CacheError(f"{path}: the data cache cannot be used: {error.strerror or error}") from error


def _open_if_whole(path: Path) -> Arrays | None:
    if not path.exists():
        return None
    try:
        return open_arrays(path)
    except DamagedStoreError as damage:
        _LOG.warning("%s is damaged (%s); building it again", path, damage)
        return None


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write the arrays atomically: a reader sees the old file, or the whole new one."""
    table = _to_table(arrays)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def open_arrays(path: Path) -> Arrays:
    """Map a file that ``write_arrays`` made; its checksums are verified once per process.

    Raises:
        DamagedStoreError: The file is not whole.
        OSError: The file cannot be opened.
    """
    with pa.memory_map(str(path)) as mapped:
        try:
            batch = pa.ipc.open_file(mapped).get_batch(0)
            documents = batch.schema.metadata[b"about"], batch.schema.metadata[b"layouts"]  # checksums among the latter
            about, layouts = map(json.loads, documents)
            columns = {name: _to_array(batch.column(name), layout) for name, layout in layouts.items()}
        except (pa.ArrowException, KeyError, IndexError, TypeError, ValueError) as error:
            raise DamagedStoreError(str(error)) from error
    state = path.stat()
    identity = (str(path.resolve()), state.st_ino, state.st_mtime_ns, state.st_size)
    if identity not in _VERIFIED:
        for name, layout in layouts.items():
            if _checksum(columns[name]) != layout["crc32"]:
                raise DamagedStoreError(f"the checksum of column '{name}' does not match")
        _VERIFIED.add(identity)
    return Arrays(columns, about, hashlib.sha256(b"\n".join(documents)).hexdigest()[:16])


def file_facts(path: Path) -> list[Any]:
    """Return what tells one version of an input file from the next, for a cache key."""
    state = path.stat()
    return [str(path.resolve()), state.st_size, state.st_mtime_ns]


def _to_table(arrays: Arrays) -> Any:
    columns, layouts = [], {}
    for name, given in arrays.columns.items():
        array = np.ascontiguousarray(given)
        width = array.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
        columns.append(pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(array), [None, pa.py_buffer(array)]))
        layouts[name] = {"dtype": array.dtype.str, "shape": array.shape[1:], "crc32": _checksum(array)}
    metadata = {"about": json.dumps(arrays.about), "layouts": json.dumps(layouts)}
    schema = pa.schema(
        [pa.field(name, column.type) for name, column in zip(layouts, columns, strict=True)], metadata=metadata
    )
    return pa.table(columns, schema=schema)


def _to_array(column: Any, layout: Mapping[str, Any]) -> NDArray[Any]:
    shape = (len(column), *layout["shape"])
    count = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(column.buffers()[1], dtype=np.dtype(layout["dtype"]), count=count).reshape(shape)


def _checksum(array: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
