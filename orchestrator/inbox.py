"""The configurations that other processes enqueue in a search: files, until its one writer has journalled them.

A file is named by its request, whose name begins with the time, so that their order is that of the requests. The
journal's event has the request's name: a file that a killed process has journalled and not removed is not taken twice.
"""

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metaloom.workers import durable
from metaloom.workers.records.names import ENQUEUED_FOLDER
from metaloom.workers.records.search import SearchRecord

ORIGIN = "enqueued"  # how the origins of enqueued trials begin


def put(folder: Path, params: Mapping[str, Any]) -> str:
    """Write a request for the search in ``folder`` and return its name; raises StorageError."""
    request = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
    (folder / ENQUEUED_FOLDER).mkdir(mode=0o700, exist_ok=True)
    durable.write_text(folder / ENQUEUED_FOLDER / f"{request}.json", json.dumps(params))
    return request


def waiting(folder: Path) -> list[dict[str, Any]]:
    """Return the values of the requests that are not journalled yet, the oldest first."""
    return [json.loads(path.read_text()) for path in _files(folder)]


def take_up(folder: Path, state: SearchRecord, journal: Callable[[dict[str, Any]], object]) -> bool:
    """Journal the requests that the journal does not have, and remove their files; return whether there was one.

    Args:
        state: Of the search; ``journal`` brings it up to date.
        journal: Journals a payload. The caller holds the writer's lock.
    """
    files = _files(folder)
    starts: Sequence[Mapping[str, Any]] = state.created.get("warm_start") or () if files else ()
    before = sum(str(one["origin"]).startswith(f"{ORIGIN}:") for one in starts)
    new = [path for path in files if path.stem not in {one["request"] for one in state.enqueued}]
    for path in new:
        origin = f"{ORIGIN}:{before + len(state.enqueued)}"
        journal({"request": path.stem, "origin": origin, "params": json.loads(path.read_text())})
    for path in files:
        path.unlink(missing_ok=True)
    return bool(new)


def _files(folder: Path) -> list[Path]:
    return sorted((folder / ENQUEUED_FOLDER).glob("[0-9]*.json"))
