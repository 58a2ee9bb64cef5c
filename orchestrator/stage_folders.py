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
from metaloom.workers.records.stages import needed_digests, read_stage, stage_directories

LOCK = "lock"  # of the process that trains a stage, in its folder
REMOVED = ".removed-"  # before the digest of a stage that is being deleted


@dataclass(frozen=True)
class StageFolder:
    """A stage of a store.

    Attributes:
        digest: The name of its folder.
        name: As the search that trains it calls it; empty where it is not finished and no search needs it.
        finished: Whether its training is.
        bytes: Of all its files.
        searches: Those whose trials have started from it.
        needed_by: Those that are not finished, and whose trials have asked for it: they go on with it.
    """

    digest: str
    name: str
    finished: bool
    bytes: int
    searches: tuple[str, ...]
    needed_by: tuple[str, ...] = ()


def contents(store: str | Path) -> list[StageFolder]:
    """Return the stages of a store."""
    home = Store(store)
    used = {name: _used(home, name) for name in records.search_names(home.path)}
    asked = {name: _asked(home, name) for name in used if _goes_on(home, name)}
    names = {digest: name for digests in asked.values() for digest, name in digests.items()}
    found = []
    for digest, folder in stage_directories(home.path):
        record = read_stage(folder)
        size = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
        searches = tuple(name for name, digests in used.items() if digest in digests)
        needed_by = tuple(name for name, digests in asked.items() if digest in digests)
        name = names.get(digest, "") if record is None else record.name
        found.append(StageFolder(digest, name, record is not None, size, searches, needed_by))
    return found


def unused(store: str | Path, *, without: str = "") -> list[StageFolder]:
    """Return the stages that no search uses or needs; with ``without`` those of this search that no other does.

    While a search runs there are none: its trials may be about to start from any of them.
    """
    running = [row["name"] for row in queries.list_searches(Store(store).path) if row["state"] == records.RUNNING]
    if running:
        return []
    wanted = {without} if without else set()
    return [one for one in contents(store) if {*one.searches, *one.needed_by} == wanted]


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


def _asked(home: Store, name: str) -> dict[str, str]:
    """Return the stages that the trials of a search have asked for: the name of each digest."""
    trials = records.trial_directories(home.folder(name)).values()
    return {digest: stage for directory in trials for stage, digest in needed_digests(directory).items()}


def _goes_on(home: Store, name: str) -> bool:
    """Return whether a resume may go on with trials of a search that have begun; of an unreadable one it may."""
    try:
        search = SearchRecord.read(home.folder(name))
    except RecordsError:
        return True
    return search.out_of_time or search.state not in (records.FINISHED, records.FAILED)
