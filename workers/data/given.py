"""Data that are given from Python, written once into the cache under their digest, where every process finds them.

Arrays become the store's own arrays, and tables an Arrow file. What kind an object is is told by what it has (duck
typing), so that neither pandas nor polars nor datasets need be installed.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from filelock import FileLock

from metaloom.learners.domains import Bounds, Int
from metaloom.learners.task_kinds import TASK_KINDS
from metaloom.workers.data import hugging_face
from metaloom.workers.data.base import CacheError, DataError
from metaloom.workers.data.given_arrays import GivenArrays, check_arrays, distinct
from metaloom.workers.data.given_path import PREFIX, kept, resolved
from metaloom.workers.data.store import Arrays, DamagedStoreError, cached, file_facts, open_arrays, write_arrays
from metaloom.workers.data.user_single_task import PARTS
from metaloom.workers.durable import written_aside
from metaloom.workers.errors import StorageError

Side = Annotated[int, Int(4, 512), Bounds(at_least=4)]


def find(path: str, cache: Path, *, size: int, color: bool, kind: str) -> Arrays:
    """Return given arrays, or those of a file: ``x``, ``y`` and, where it is said, ``part``.

    Args:
        path: The setting.
        cache: The cache's folder.
        size: Side of a saved data set's images.
        color: Three channels of these.
        kind: The kind of task, which says whether ``y`` of a file are classes.

    Raises:
        DataError: The file is absent, or holds no such arrays.
    """
    file = resolved(path, cache)
    if path.startswith(PREFIX):
        try:
            return open_arrays(file)
        except (DamagedStoreError, OSError) as error:
            raise DataError(f"tasks.path: {file} is damaged ({error}): remove it, and give the data again") from error
    has_classes = TASK_KINDS[kind].has_classes
    if file.is_dir():
        key: dict[str, Any] = {"source": "saved", "facts": [file_facts(one) for one in sorted(file.rglob("*.arrow"))]}
        settings = {"size": size, "color": color, "classes": has_classes}
        saved = hugging_face.SavedData.read(file)
        return cached(cache, "saved", key | settings, lambda: to_store(saved.images(size=size, color=color)))
    if not file.is_file():
        raise DataError(f"tasks.path: there is no file {file}")
    key = {"source": "npz", "file": file_facts(file), "classes": has_classes}
    return cached(cache, "npz", key, lambda: to_store(_read_npz(file, has_classes=has_classes)))


def _read_npz(file: Path, *, has_classes: bool) -> GivenArrays:
    try:
        with np.load(file, allow_pickle=False) as opened:
            held = {name: opened[name] for name in opened.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError) as error:
        raise DataError(f"tasks.path: {file}: not readable as arrays of numpy (.npz): {error}") from error
    if missing := [name for name in ("x", "y") if name not in held]:
        raise DataError(f"tasks.path: {file} has no array {' and no '.join(missing)} (it has {', '.join(held)})")
    return check_arrays(held["x"], held["y"], held.get("split"), has_classes=has_classes)


def to_store(arrays: GivenArrays) -> Arrays:
    """Return checked arrays as the store keeps them."""
    about: dict[str, Any] = {"notes": list(arrays.notes)}
    columns: dict[str, Any] = {"x": arrays.x, "y": arrays.y}
    if arrays.y.dtype.kind == "U":
        about["classes"], columns["y"] = distinct(arrays.y)
        if len(about["classes"]) < 2:
            raise DataError(f"tasks: all {len(arrays.y)} labels are '{about['classes'][0]}'; give two classes or more")
    if arrays.parts is not None:
        columns["part"] = np.array([PARTS.index(part) for part in arrays.parts], dtype=np.int8)
    return Arrays(columns, about)


def keep_arrays(arrays: GivenArrays, cache: Path) -> str:
    """Write arrays into the cache once, and return the value of the setting ``path`` that finds them."""
    stored = to_store(arrays)
    digest = hashlib.sha256(repr(sorted(stored.about.items())).encode())
    for name, column in sorted(stored.columns.items()):
        digest.update(f"{name} {column.dtype.str} {column.shape}".encode())
        digest.update(np.ascontiguousarray(column).data)
    return _keep(digest.hexdigest()[:32], cache, lambda path: write_arrays(path, stored))


def keep_table(table: Any, cache: Path) -> str:
    """Write an Arrow table into the cache once, and return the value of the setting ``path`` that finds it."""
    plain = table.replace_schema_metadata(None).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, plain.schema) as writer:
        writer.write_table(plain)
    content = sink.getvalue()

    def write(path: Path) -> None:
        with written_aside(path) as aside:
            aside.write_bytes(content)

    return _keep(hashlib.sha256(content).hexdigest()[:32], cache, write)


def _keep(digest: str, cache: Path, write: Any) -> str:
    path = kept(digest, cache)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.is_file():
                write(path)
    except (OSError, StorageError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CacheError(f"{path}: the given data cannot be kept: {reason}") from error
    return PREFIX + digest
