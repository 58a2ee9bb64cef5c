"""The files that sources keep on a machine: downloads, and arrays that all workers of a node share.

Arrays are memory-mapped from one Arrow file. Each is a column of fixed-size binary values in a single record batch;
dtype, row shape, checksums and a JSON document (class names, splits) are the schema's metadata. Opened arrays are
read-only views of the mapped pages: nothing is copied until an episode gathers its rows.
"""

import hashlib
import json
import logging
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import NDArray

from metaloom.learners.errors import BadEnvironment
from metaloom.workers.activity import doing
from metaloom.workers.data.base import CacheError, DataError
from metaloom.workers.durable import ASIDE, digest, written_aside
from metaloom.workers.errors import StorageError

FORMAT = 1
TIMEOUT_S = 60
CHUNK_BYTES = 1 << 20
_LOG = logging.getLogger("metaloom.data")
_VERIFIED: set[tuple[str, int, int, int]] = set()


class DamagedStoreError(Exception):
    """A store file is not what was written; its message says how. ``cached`` rebuilds it."""


@dataclass(frozen=True)
class Arrays:
    """Named arrays of equal length, and a JSON document about them.

    ``digest`` is of the contents of the file they were opened from; empty before. ``remarks`` for the user are no part
    of it.
    """

    columns: Mapping[str, NDArray[Any]]
    about: dict[str, Any]
    digest: str = ""
    remarks: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]


def cached(cache: Path, name: str, key: Mapping[str, Any], build: Callable[[], Arrays]) -> Arrays:
    """Open the arrays that ``key`` describes; build them first if they are absent or damaged.

    Only one process of a machine builds; the others wait for it. Raises CacheError if the folder cannot be written or
    the file not read.

    Args:
        cache: Folder of the cache; made if absent.
        name: Source name, the file's first part.
        key: Everything that the built arrays depend on; JSON-able.
        build: Makes the arrays; its exceptions pass through and leave no file.
    """
    path = cache / f"{name}-{digest(json.dumps({'format': FORMAT, **key}, sort_keys=True).encode())[:16]}.arrow"
    try:
        if (arrays := _open_if_whole(path)) is not None:
            return arrays
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if (arrays := _open_if_whole(path)) is not None:  # built by another process while this one waited
                return arrays
            _LOG.info("building the data cache of %s", name)
            for left in cache.glob(f"{ASIDE}*-{path.name}"):  # of a killed process: this one has the lock
                left.unlink(missing_ok=True)
            with doing(f"building the data cache of {name}"):
                write_arrays(path, build())
            return open_arrays(path)
    except (OSError, StorageError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CacheError(f"{path}: the data cache cannot be used: {reason}") from error


def _open_if_whole(path: Path) -> Arrays | None:
    try:
        return open_arrays(path) if path.exists() else None
    except DamagedStoreError as damage:
        _LOG.warning("%s is damaged (%s); building it again", path, damage)
        return None


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write the arrays atomically: a reader sees the old file, or the whole new one."""
    table = _to_table(arrays)
    with written_aside(path) as aside, pa.ipc.new_file(str(aside), table.schema) as writer:
        writer.write_table(table)


def open_arrays(path: Path) -> Arrays:
    """Map a file that ``write_arrays`` made; its checksums are verified once per process.

    Raises DamagedStoreError if it is not whole, OSError if it cannot be opened.
    """
    with pa.memory_map(str(path)) as mapped:
        try:
            batch = pa.ipc.open_file(mapped).get_batch(0)
            documents = batch.schema.metadata[b"about"], batch.schema.metadata[b"layouts"]  # checksums among the latter
            about, layouts = map(json.loads, documents)
            remarks = tuple(json.loads(batch.schema.metadata.get(b"remarks", b"[]")))
            columns = {name: _to_array(batch.column(name), layout) for name, layout in layouts.items()}
        except (pa.ArrowException, AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise DamagedStoreError(str(error)) from error
    state = path.stat()
    identity = (str(path.resolve()), state.st_ino, state.st_mtime_ns, state.st_size)
    if identity not in _VERIFIED:
        for name, layout in layouts.items():
            if _checksum(columns[name]) != layout.get("crc32"):
                raise DamagedStoreError(f"the checksum of column '{name}' does not match")
        _VERIFIED.add(identity)
    return Arrays(columns, about, digest(b"\n".join(documents))[:16], remarks)


def file_facts(path: Path) -> list[Any]:
    """Return path, size and time, which tell one version of an input file from the next, for a cache key."""
    state = path.stat()
    return [str(path.resolve()), state.st_size, state.st_mtime_ns]


def _to_table(arrays: Arrays) -> Any:
    columns, layouts = [], {}
    for name, given in arrays.columns.items():
        array = np.ascontiguousarray(given)
        width = array.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
        columns.append(pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(array), [None, pa.py_buffer(array)]))
        layouts[name] = {"dtype": array.dtype.str, "shape": array.shape[1:], "crc32": _checksum(array)}
    fields = [(name, column.type) for name, column in zip(layouts, columns, strict=True)]
    metadata = {"about": json.dumps(arrays.about), "layouts": json.dumps(layouts)}
    metadata |= {"remarks": json.dumps(arrays.remarks)} if arrays.remarks else {}
    return pa.table(columns, schema=pa.schema(fields, metadata=metadata))


def _to_array(column: Any, layout: Mapping[str, Any]) -> NDArray[Any]:
    shape = (len(column), *layout["shape"])
    count = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(column.buffers()[1], dtype=np.dtype(layout["dtype"]), count=count).reshape(shape)


def _checksum(array: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


class DownloadError(BadEnvironment):
    """A file cannot be fetched from here."""


def fetch(url: str, sha256: str, folder: Path) -> Path:
    """Return the file, from ``folder`` if it is there with this checksum, else from the network.

    Raises DownloadError if it cannot be fetched, DataError for another checksum.
    """
    path = folder / url.rsplit("/", 1)[-1]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{path.name}.lock"):
        if not (path.exists() and _file_digest(path) == sha256):
            _download(url, sha256, path)
    return path


def _download(url: str, sha256: str, path: Path) -> None:
    aside = Path(tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")[1])
    try:
        with (
            doing(f"fetching {url}"),
            urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer,
            aside.open("wb") as file,
        ):
            while chunk := answer.read(CHUNK_BYTES):
                file.write(chunk)
        if (given := _file_digest(aside)) != sha256:
            raise DataError(
                f"{url}: the download's SHA-256 is {given}, and {sha256} was expected; it was thrown away. "
                f"Fetch the file yourself and give tasks.path"
            )
        aside.replace(path)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise DownloadError(f"{url}: cannot be downloaded ({error}). Fetch it yourself and give tasks.path") from error
    finally:
        aside.unlink(missing_ok=True)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
