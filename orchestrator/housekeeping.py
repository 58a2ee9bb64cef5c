"""Removes, renames and annotates searches; MLflow and Optuna's database are told.

Each change ends with one step that the file system or the journal does whole or not at all. What comes before it can be
repeated, and what comes after it is taken up by a repetition of the same command: a kill leaves the old state or the
new one.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import filelock

from metaloom.learners.errors import unknown
from metaloom.orchestrator import stage_folders
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.journal import Journal, writer_lock
from metaloom.orchestrator.proposing import mirror
from metaloom.orchestrator.proposing.mirror import TABLES
from metaloom.orchestrator.proposing.removing import remove_study
from metaloom.orchestrator.repair import recover
from metaloom.orchestrator.store import DEFAULT_STORE, Store, checked_name, explained
from metaloom.orchestrator.tracking import outboxes
from metaloom.orchestrator.tracking.databases import OwnDatabase
from metaloom.orchestrator.tracking.outbox import POLL_S, Backlog
from metaloom.orchestrator.tracking.projection import own_database
from metaloom.orchestrator.tracking.removing import remove_runs
from metaloom.workers import durable
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import RecordsError
from metaloom.workers.records.journal_sources import holds_records
from metaloom.workers.records.search import SearchRecord

REMOVED = ".removed-"  # before the name of a folder that is being deleted; no search can be named so
PROJECTIONS = (records.MLFLOW_MARK, records.OPTUNA_MARK)
LONGEST_REMARK = 1000


@dataclass(frozen=True)
class Removal:
    """What was removed, or would be.

    Attributes:
        trials: The number of its trials; 0 where an earlier call was cut off, and this one removes the rest.
        bytes: The size of its folder.
        runs: The number of its runs that were removed from MLflow; None where they are kept, and with ``dry_run``.
        stages: The digests of the stages of its trials that no other search uses, which go with it.
    """

    name: str
    trials: int
    bytes: int
    runs: int | None
    stages: tuple[str, ...] = ()


def remove(name: str, *, store: str | Path = DEFAULT_STORE, keep_runs: bool = False, dry_run: bool = False) -> Removal:
    """Remove a search: its records, checkpoints and figures, its runs in MLflow, its study in Optuna's database.

    The stages of its trials that no other search uses go too, unless a search runs.

    Args:
        name: The search; one whose records are damaged can be removed too.
        store: Folder of all records.
        keep_runs: Leave its runs in MLflow.
        dry_run: Change nothing.

    Raises:
        SearchError: There is no such search, or a process runs it or sends it to MLflow.
        StoreError: MLflow, Optuna's database or the folder cannot be written; the search is still there.
    """
    home = Store(store)
    folder, leaving = home.folder(name), home.searches / f"{REMOVED}{checked_name(name)}"
    if not folder.is_dir():
        if not leaving.is_dir():
            raise SearchError(_absent(home, name))
        return _delete(Removal(name, 0, _size(leaving), None), leaving, dry_run)
    search = _known(folder)
    stages = stage_folders.unused(home.path, without=name)
    found = Removal(name, len(search.trials), _size(folder), None, tuple(one.digest for one in stages))
    if dry_run:
        return found
    with _owned(folder):
        runs = None if keep_runs else remove_runs(folder, search, store=home.path)
        remove_study(home, name)
        _forget(home, name)
        with explained(folder):
            if leaving.exists():
                shutil.rmtree(leaving)
            folder.replace(leaving)
            durable.sync(home.searches)
    gone = tuple(one.digest for one in stage_folders.remove(home.path, stages))
    return _delete(replace(found, runs=runs, stages=gone), leaving, dry_run)


def rename(
    name: str, new: str, *, store: str | Path = DEFAULT_STORE, warn: Callable[[str], None] = lambda line: None
) -> list[Backlog]:
    """Rename a search, its runs and experiment in MLflow and its study in Optuna's database.

    Args:
        name: The search.
        new: Its new name, which no other search has.
        store: Folder of all records.
        warn: Receives one line for each system that does not answer.

    Returns:
        What has not been told yet; ``metaloom sync`` tells it.

    Raises:
        SearchError: There is no such search, the new name is in use or cannot be one, or a process runs the search.
        StoreError: Optuna's database or the folder cannot be written; the search has its old name.
    """
    home = Store(store)
    if checked_name(new) == name:
        raise SearchError(f"search '{name}' has that name already")
    if not home.folder(name).is_dir() and _was_named(home.folder(new), name):
        return _tell(home, new, warn)  # the rest of an earlier call
    folder, target = home.existing_folder(name), home.folder(new)
    if holds_records(target):
        raise SearchError(f"a search named '{new}' exists already in {home.path}; choose another name")
    with _owned(folder):
        for line in recover(folder).lines:
            warn(line)
        with Journal(folder) as journal:
            outboxes.end_if_killed(journal)
            journal.append_between(records.RENAMED, {"before": name, "name": new, "time": time.time()})
        remove_study(home, name)  # it is made again under the new name, from the journal
        _forget(home, name)
        with explained(folder):
            if target.exists():
                target.rmdir()  # of a search that was stopped before its first record
            folder.replace(target)
            durable.sync(home.searches)
    return _tell(home, new, warn)


def note(
    name: str,
    text: str,
    *,
    trial: int | None = None,
    store: str | Path = DEFAULT_STORE,
    warn: Callable[[str], None] = lambda line: None,
) -> list[Backlog]:
    """Add a remark to a search or to one of its trials; ``metaloom show`` and MLflow show it.

    Raises:
        SearchError: There is no such search or trial, the text is empty or too long, or a process runs the search.
    """
    home = Store(store)
    folder, text = home.existing_folder(name), text.strip()
    if not text or len(text) > LONGEST_REMARK:
        raise SearchError(f"a note has 1 to {LONGEST_REMARK} characters, got {len(text)}")
    with writer_lock(folder):
        for line in recover(folder).lines:
            warn(line)
        with Journal(folder) as journal:
            search = SearchRecord.replay(journal.events())
            if trial is not None and trial not in search.trials:
                has = ", ".join(map(str, sorted(search.trials))) or "none"
                raise SearchError(f"search '{name}' has no trial {trial}; it has {has}")
            earlier = search.remarks if trial is None else search.trials[trial].remarks
            outboxes.end_if_killed(journal)
            payload = {"text": text, "time": time.time(), "notes": [*earlier, text]}
            journal.append_between(records.NOTED, payload, trial=trial)
    return _tell(home, name, warn)


def _tell(home: Store, name: str, warn: Callable[[str], None]) -> list[Backlog]:
    return outboxes.synchronize(home.path, name, warn=warn, others=mirror.projections)[0]


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Hold all locks of a search within this context: nothing else writes it, or sends it anywhere.

    Raises:
        SearchError: Another process does.
    """
    with writer_lock(folder), ExitStack() as stack:
        for name in PROJECTIONS:
            try:
                stack.enter_context(filelock.FileLock(folder / f"{name}.lock", timeout=POLL_S))
            except filelock.Timeout:
                problem = f"another process is sending search '{folder.name}' to {name}"
                raise SearchError(f"{problem}; wait for it, or stop it first") from None
        yield


def _forget(home: Store, name: str) -> None:
    """Strike a name from the lists of searches that are still to be sent to a database that was made again."""
    for database in (own_database(home.path), OwnDatabase(home.optuna_database, TABLES, lambda held: [])):
        database.sent(name)


def _was_named(folder: Path, name: str) -> bool:
    return holds_records(folder) and name in SearchRecord.read(folder).former_names[-1:]


def _known(folder: Path) -> SearchRecord:
    """Return the record of a search; an empty one where nothing of it can be read."""
    try:
        return SearchRecord.read(folder)
    except RecordsError:
        return SearchRecord()


def _absent(home: Store, name: str) -> str:
    names: Sequence[str] = records.search_names(home.path)
    return unknown("search", name, names) if names else f"there is no search yet in {home.path}"


def _delete(removal: Removal, leaving: Path, dry_run: bool) -> Removal:
    if not dry_run:
        with explained(leaving):
            shutil.rmtree(leaving)
    return removal


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
