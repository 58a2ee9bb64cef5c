"""Tasks as objects of Python: arrays, data frames, Arrow tables, data sets of torch and of Hugging Face.

They are written once into the cache (``given.py``); what is left is a tasks section as a file has it, which a worker on
another machine and a later ``resume`` read alike.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from metaloom.learners.errors import BadInput, LearnerError, unknown
from metaloom.learners.task_kinds import CLASSIFICATION, TASK_KINDS
from metaloom.workers.data import given
from metaloom.workers.data.base import DataError
from metaloom.workers.data.given import keep_table
from metaloom.workers.data.given_arrays import as_array, check_arrays
from metaloom.workers.data.hugging_face import SPLIT, SavedData

DATA = "data"
LIVE = (DATA, "x", "y")  # keys of a tasks mapping that hold objects
WANTED = (
    "arrays (x, y), a data frame of pandas or polars, an Arrow table, a data set of torch or of Hugging Face, or a "
    "mapping with one of these as 'data' (or with 'x' and 'y') and the settings of the tasks section"
)


def holds_objects(tasks: Any) -> bool:
    """Return whether a tasks section from Python holds data, rather than the settings of a file alone."""
    if isinstance(tasks, Mapping) and not _is_splits(tasks):
        return any(name in tasks for name in LIVE)
    return not isinstance(tasks, str | Mapping) or _is_splits(tasks)


def section_of(tasks: Any, cache: Path) -> dict[str, Any]:
    """Write the data into the cache, and return the tasks section that finds them.

    Args:
        tasks: See ``metaloom.search``.
        cache: The store's cache.

    Raises:
        DataError: The data are none of these, or cannot be used; the message says what is wanted.
        CacheError: The cache cannot be written.
    """
    settings: dict[str, Any] = {}
    if isinstance(tasks, Mapping) and not _is_splits(tasks):
        settings = {str(name): value for name, value in tasks.items() if name not in LIVE}
        settings |= _classes(settings.get("class_features"), cache)
        if DATA in tasks and ("x" in tasks or "y" in tasks):
            raise DataError("tasks: give 'data', or 'x' and 'y', not both")
        if DATA not in tasks and not ("x" in tasks and "y" in tasks):
            raise DataError("tasks: 'x' and 'y' belong together: give both")
        tasks = tasks[DATA] if DATA in tasks else (tasks["x"], tasks["y"])
    frame = _as_table(tasks)
    if frame is not None:
        return _table_section(frame, settings, cache)
    if _is_hugging_face(tasks) or _is_splits(tasks):
        return _saved_section(SavedData.of(tasks), settings, cache)
    if isinstance(tasks, str | Path):
        return _saved_section(SavedData.read(Path(tasks)), settings, cache)
    return _arrays_section(_pair(tasks), settings, cache)


def _classes(given: Any, cache: Path) -> dict[str, Any]:
    """Write a table of classes that is given as ``data`` into the cache, and return the setting that finds it."""
    if not isinstance(given, Mapping) or DATA not in given:
        return {}
    table = _as_table(given[DATA])
    if table is None:
        kind = type(given[DATA]).__name__
        raise DataError(
            f"tasks.class_features.data: got {kind}; give a data frame of pandas or polars, or an Arrow table"
        )
    rest = {name: value for name, value in given.items() if name != DATA}
    return {"class_features": {**rest, "path": keep_table(table, cache)}}


def _is_hugging_face(data: Any) -> bool:
    return all(hasattr(data, name) for name in ("with_format", "features", "column_names"))


def _is_splits(data: Any) -> bool:
    return isinstance(data, Mapping) and bool(data) and all(map(_is_hugging_face, data.values()))


def _as_table(data: Any) -> Any:
    """Return an Arrow table of a table, or of a data frame of pandas or polars; None for anything else."""
    if isinstance(data, pa.Table):
        return data
    if hasattr(data, "to_arrow") and hasattr(data, "columns"):  # polars
        return data.to_arrow()
    if hasattr(data, "iloc") and hasattr(data, "columns"):  # pandas
        if twice := sorted({str(name) for name in data.columns if list(data.columns).count(name) > 1}):
            raise DataError(f"tasks: the data frame has the column '{twice[0]}' twice; rename one")
        try:
            return pa.Table.from_pandas(data.rename(columns=str), preserve_index=False)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise DataError(f"tasks: the data frame cannot be read as a table: {error}") from error
    return None


def _table_section(table: Any, settings: dict[str, Any], cache: Path) -> dict[str, Any]:
    _refuse_source(settings, "table")
    if "label" not in settings:
        if "label" not in table.column_names:
            columns = ", ".join(table.column_names[:20])
            raise DataError(f"tasks.label: name the column of the labels (columns: {columns})")
        settings = {"label": "label", **settings}
    return {"source": "table", "path": given.keep_table(table, cache), **settings}


def _saved_section(saved: SavedData, settings: dict[str, Any], cache: Path) -> dict[str, Any]:
    label = settings.get("label")
    if saved.image is None:
        found = {"split": SPLIT} if "" not in saved.tables and settings.get("episodes") == "single_task" else {}
        return _table_section(saved.table(label), {"label": saved.label(label), **found, **settings}, cache)
    _refuse_source(settings, "arrays")
    settings = {name: value for name, value in settings.items() if name != "label"}
    size, color = settings.pop("size", 28), settings.pop("color", False)
    if not isinstance(size, int) or not isinstance(color, bool):
        raise DataError(f"tasks.size, tasks.color: got {size!r} and {color!r}; give a whole number, and true or false")
    arrays = saved.images(size=size, color=color, label=label)
    return {"source": "arrays", "path": given.keep_arrays(arrays, cache), **settings}


def _arrays_section(pair: tuple[Any, Any], settings: dict[str, Any], cache: Path) -> dict[str, Any]:
    _refuse_source(settings, "arrays")
    kind, split = settings.get("kind", CLASSIFICATION.name), None
    if not isinstance(settings.get("split"), str | Mapping):  # those are lists of classes, for few-shot episodes
        split = settings.pop("split", None)
    if not isinstance(kind, str) or kind not in TASK_KINDS:
        raise DataError(f"tasks.kind: {unknown('kind of task', kind, TASK_KINDS)}")
    arrays = check_arrays(*pair, split, has_classes=TASK_KINDS[kind].has_classes)
    return {"source": "arrays", "path": given.keep_arrays(arrays, cache), **settings}


def _refuse_source(settings: dict[str, Any], own: str) -> None:
    """Take ``source`` out of the settings; raises DataError if it names another source than the data's own."""
    source = settings.pop("source", own)
    if source not in (own, "arrays"):
        raise DataError(f"tasks.source: these data are given as {own}, not as {source}; leave it out")


def _pair(data: Any) -> tuple[Any, Any]:
    """Return examples and labels of a pair of arrays, or of a data set of torch; raises DataError for others."""
    if isinstance(data, torch.utils.data.IterableDataset):
        raise DataError("tasks: a data set that can only be iterated over; give one with a length, or arrays")
    if isinstance(data, torch.utils.data.Dataset):
        return _of_torch(data)
    if isinstance(data, tuple | list) and len(data) == 2:
        return data[0], data[1]
    raise DataError(f"tasks: got {type(data).__name__}; give {WANTED}")


def _of_torch(data: Any) -> tuple[Any, Any]:
    """Read every example of a data set of torch, (x, y) each; pictures of Pillow become arrays."""
    try:
        items = [data[place] for place in range(len(data))]
    except (BadInput, LearnerError):
        raise
    except Exception as error:  # the user's own code
        raise DataError(f"tasks: the data set fails: {type(error).__name__}: {error}") from error
    if odd := [place for place, item in enumerate(items) if not (isinstance(item, tuple | list) and len(item) == 2)]:
        raise DataError(f"tasks: item {odd[0]} of the data set is no pair (x, y)")
    examples = [as_array(x, "x") for x, _ in items]
    if len(shapes := sorted({one.shape for one in examples})) > 1:
        raise DataError(f"tasks: examples of different shapes: {', '.join(map(str, shapes[:3]))}; resize them")
    labels = [as_array(y, "y") for _, y in items]
    return np.stack(examples), np.stack(labels)
