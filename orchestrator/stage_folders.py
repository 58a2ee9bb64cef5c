"""The folders of the stages of a store: which are there, which no search uses any more, and how these are removed."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock

from metaloom.dashboards import queries
from metaloom.orchestrator.store import Store, explained
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import RecordsError
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.stages import read_stage, stage_directories

LOCK = "lock"  # of the process that trains a stage, in its folder
REMOVED = ".removed-"  # before the digest of a stage that is being deleted


@dataclass(frozen=True)
class StageFolder:
    """A stage of a store.

    Attributes:
        digest: The name of its folder.
        name: As the search that trained it calls it; empty while it is not finished.
        bytes: Of all its files.
        searches: Those whose trials have started from it.
    """

    digest: str
    name: str
    bytes: int
    searches: tuple[str, ...]


def contents(store: str | Path) -> list[StageFolder]:
    """Return the stages of a store."""
    home = Store(store)
    used = {name: _used(home, name) for name in records.search_names(home.path)}
    found = []
    for digest, folder in stage_directories(home.path):
        record = read_stage(folder)
        size = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
        searches = tuple(name for name, digests in used.items() if digest in digests)
        found.append(StageFolder(digest, "" if record is None else record.name, size, searches))
    return found


def unused(store: str | Path, *, without: str = "") -> list[StageFolder]:
    """Return the stages from which no trial has started; with ``without`` those of this search that no other uses.

    While a search runs there are none: its trials may be about to start from any of them.
    """
    running = [row["name"] for row in queries.list_searches(Store(store).path) if row["state"] == records.RUNNING]
    if running:
        return []
    wanted = (without,) if without else ()
    return [one for one in contents(store) if one.searches == wanted]


def remove(store: str | Path, folders: Sequence[StageFolder]) -> list[StageFolder]:
    """Remove stages, and what an earlier call that was killed has left; return those that no process was training.

    Raises:
        StoreError: A folder cannot be removed.
    """
    stages = Store(store).path / records.STAGES_FOLDER
    removed = []
    with explained(stages):
        for one in folders:
            leaving = stages / f"{REMOVED}{one.digest}"
            try:
                with filelock.FileLock(stages / one.digest / LOCK, timeout=0):
                    (stages / one.digest).replace(leaving)
            except filelock.Timeout:
                continue
            removed.append(one)
        for leaving in stages.glob(f"{REMOVED}*"):
            shutil.rmtree(leaving)
    return removed


def _used(home: Store, name: str) -> set[str]:
    """Return the digests of the stages from which the trials of a search have started; none of an unreadable one."""
    try:
        search = SearchRecord.read(home.folder(name))
    except RecordsError:
        return set()
    return {str(stage["digest"]) for trial in search.trials.values() for stage in trial.stages}
