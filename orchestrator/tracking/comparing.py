"""Compares the runs that MLflow has with those that it should have."""

import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from metaloom.orchestrator.tracking.batches import RUNNING, Batch
from metaloom.orchestrator.tracking.client import accepted_key
from metaloom.orchestrator.tracking.relocating import is_local, path_of

if TYPE_CHECKING:
    from mlflow.entities import Run


def lacking(
    expected: Mapping[str, Batch], found: Mapping[str, "Run"], points: Mapping[str, int] | None = None
) -> set[str]:
    """Return the keys of the runs that are missing, or lack values, parameters or their status.

    Of each metric the value of its last step is compared: a server that has lost records has lost the last ones.

    Args:
        points: How many metric points each run has, where that is known.
    """
    return {
        key
        for key, batch in expected.items()
        if key not in found
        or not _is_whole(batch, found[key])
        or (points is not None and points.get(found[key].info.run_id, 0) < _count(batch))
    }


def without_files(expected: Mapping[str, Batch], found: Mapping[str, "Run"]) -> set[str]:
    """Return the keys of the runs whose files should lie on this machine's file system, where none of them is."""
    return {
        key
        for key, batch in expected.items()
        if key in found
        and (batch.texts or any(path.exists() for path, _ in batch.files))
        and is_local(place := str(found[key].info.artifact_uri))
        and not any(path_of(place).glob("*"))
    }


def _is_whole(batch: Batch, run: "Run") -> bool:
    status = batch.status[0] if batch.status else RUNNING
    params = {accepted_key(name) for name in batch.params}
    ordered = sorted(batch.metrics, key=lambda point: (point[3], point[2]))  # by step, then by time
    last = {accepted_key(name): value for name, value, *_ in ordered}
    has_metrics = all(_is_same(run.data.metrics.get(name), value) for name, value in last.items())
    return run.info.status == status and has_metrics and params <= run.data.params.keys()


def _is_same(stored: float | None, value: float) -> bool:
    """Compare as MLflow stores a value: an infinite one as the greatest finite one."""
    if stored is None or math.isnan(value):
        return stored is not None and math.isnan(stored)
    return stored == max(-sys.float_info.max, min(sys.float_info.max, value))


def _count(batch: Batch) -> int:
    return len({(name, repr(value), *rest) for name, value, *rest in batch.metrics})
