"""Resumes a search that was stopped or killed, from its journal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaloom.orchestrator import credentials
from metaloom.orchestrator.ending import end_note
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.executors import RunOptions
from metaloom.orchestrator.extending import Extension, extend
from metaloom.orchestrator.given_tasks import give_again
from metaloom.orchestrator.journal import Journal, writer_lock
from metaloom.orchestrator.messages import SearchProgress
from metaloom.orchestrator.reading import admit
from metaloom.orchestrator.rehearsal import check_data
from metaloom.orchestrator.repair import is_current, recover
from metaloom.orchestrator.session import SearchSummary, check_machine, check_workers, run_session, summarize
from metaloom.orchestrator.store import DEFAULT_STORE, Store
from metaloom.orchestrator.tracking.outbox import Backlog, waiting
from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.experiment import FIRST_FINGERPRINT_VERSION, NOT_IN_FINGERPRINT, Experiment
from metaloom.search_spaces.loading import load_experiment
from metaloom.workers.records import names as records
from metaloom.workers.records.journal_sources import read_journal
from metaloom.workers.records.search import SearchRecord

# Settings outside the experiment's fingerprint, which may change between sessions.
FREE = ("name", "resources", "tracking", *(f"search.{name}" for name in NOT_IN_FINGERPRINT))
MOST_CHANGES = 8


def resume(
    name: str,
    store: str | Path = DEFAULT_STORE,
    *,
    executor: str | None = None,
    address: str | None = None,
    insecure_cluster: bool = False,
    concurrency: int | None = None,
    time_budget_s: float | None = None,
    trials: int | None = None,
    progress: SearchProgress | None = None,
    tasks: Any = None,
    trust_code: bool = False,
) -> SearchSummary:
    """Resume a search. If it has ended, do nothing; the summary says so.

    A search that its time budget has ended goes on with a larger one: the trials that the budget has stopped from
    their checkpoints, then those that were not begun. A search that has tried all its trials goes on with more of them.
    The result is that of a search which was begun so. A resume without these goes on to them too.

    Args:
        name: The search.
        store: Folder of all records.
        executor: Instead of the search's first one.
        address: Instead of the search's first one.
        insecure_cluster: Join the cluster though ``RAY_AUTH_MODE`` is not ``token``; kept from the first session.
        concurrency: Instead of the search's first one.
        time_budget_s: Instead of the search's; above the time that it has spent.
        trials: Instead of the search's; all of it together, so above the number that it has begun.
        progress: Receives every event.
        tasks: The data that the search was given from Python, where the store's cache has them no more.
        trust_code: Import the classes that ``learner.architecture.of`` names: their code runs here.

    Raises:
        SearchError: There is no such search, its file or its data have changed, or another process runs it.
        BadEnvironment: The store, the disk or Ray is at fault.
    """
    home = Store(store)
    folder = home.existing_folder(name)
    found = read_journal(folder)
    state = SearchRecord.read(folder, found)
    wanted = Extension(time_budget_s, trials)
    if not state.warnings and (ended := _ended(folder, state, wanted)):
        return ended
    home.create()
    with writer_lock(folder):
        notes = recover(folder, found).lines
        if not is_current(folder, found):  # it was repaired, or another process has run the search
            found = read_journal(folder)
            state = SearchRecord.read(folder, found)
        if ended := _ended(folder, state, wanted, notes):
            return ended
        warning = credentials.adopt(home.path, folder)
        experiment = _unchanged(folder, state.created)
        credentials.resolved(home.path, experiment.tracking.uri or "")  # what is missing is said at once
        admit(experiment, trust_code)
        if tasks is not None:
            give_again(tasks, state, name, home)
        if data := state.created.get("data"):
            check_data(data, name, cache=home.cache)
        before = state.created.get("options") or {}
        options = RunOptions(
            executor or str(before.get("executor") or "ray"),
            address or (before.get("address") if executor != "inline" else None),
            concurrency or before.get("concurrency"),
            insecure_cluster or bool(before.get("insecure_cluster")),
        )
        check_machine(experiment, options)
        check_workers(experiment, options)
        notes += [warning] if warning else []
        with Journal(folder, verified=len(found.rows)) as journal:
            extend(journal, wanted)
            return run_session(experiment, journal, store=home, options=options, progress=progress, notes=notes)


def _ended(folder: Path, state: SearchRecord, wanted: Extension, notes: Sequence[str] = ()) -> SearchSummary | None:
    """Return the summary of a search that has ended; None if it has not, or goes on as is wanted."""
    if state.state not in (records.FINISHED, records.FAILED) or wanted.goes_on(folder, state):
        return None
    ended = f"search '{folder.name}' has ended already ({state.state})"
    nothing = f"{ended}; there is nothing to resume; --trials N adds trials"
    behind = [Backlog(mark, waiting(folder, mark), "") for mark in (records.MLFLOW_MARK, records.OPTUNA_MARK)]
    backlogs = [one for one in behind if one.events]
    return summarize(folder, state, notes=[*notes, end_note(folder, state) or nothing], backlogs=backlogs)


def _unchanged(folder: Path, created: Mapping[str, Any]) -> Experiment:
    """Return the search's experiment; raises SearchError if it or its file now means something else."""
    name = folder.name
    if not created:
        raise SearchError(f"search '{name}' was killed before its first record; remove {folder} and search again")
    other = f"search '{name}' was begun by another version of metaloom"
    advice = "resume it with that version, or begin a new search"
    version = created.get("fingerprint_version", FIRST_FINGERPRINT_VERSION)
    try:
        begun = load_experiment(created["experiment"], fingerprint_version=version)
    except ExperimentError as error:
        raise SearchError(f"{other}, and this one does not take its experiment: {error}; {advice}") from error
    if begun.fingerprint() != created["fingerprint"]:
        raise SearchError(f"{other}, for which its file means something else; {advice}")
    file = created.get("file")
    if file and Path(file).is_file():
        now = load_experiment(file, created["overrides"], fingerprint_version=version)
        if now.fingerprint() != created["fingerprint"]:
            changed = f"{file} has changed since search '{name}' was begun: {'; '.join(_changes(begun, now))}"
            raise SearchError(f"{changed}. Put it back, or begin a new search with --name")
    return begun


def _changes(begun: Experiment, now: Experiment) -> list[str]:
    was, become = (_leaves({**one.document, "search": one.search.model_dump(mode="json")}) for one in (begun, now))
    changes = [
        f"{path} was {was.get(path, 'absent')}, is {become.get(path, 'absent')}"
        for path in sorted(was.keys() | become.keys())
        if was.get(path) != become.get(path) and not path.startswith(FREE)
    ]
    rest = len(changes) - MOST_CHANGES
    return changes[:MOST_CHANGES] + ([f"and {rest} more"] if rest > 0 else [])


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Flatten mappings and lists to dotted paths."""
    if isinstance(value, Mapping):
        parts = {f"{path}.{key}" if path else str(key): item for key, item in value.items()}
    elif isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        parts = {f"{path}[{index}]": item for index, item in enumerate(value)}
    else:
        return {path: value}
    return {leaf: item for inner, child in parts.items() for leaf, item in _leaves(child, inner).items()}
