"""Resumes a search that was stopped or killed, from its journal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaloom.orchestrator import credentials
from metaloom.orchestrator.director import SearchProgress
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.executors import RunOptions
from metaloom.orchestrator.journal import Journal, writer_lock
from metaloom.orchestrator.reading import admit, load_search
from metaloom.orchestrator.rehearsal import check_data
from metaloom.orchestrator.session import SearchSummary, run_session, summarize
from metaloom.orchestrator.store import DEFAULT_STORE, Store
from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.experiment import FIRST_FINGERPRINT_VERSION, NOT_IN_FINGERPRINT, Experiment
from metaloom.search_spaces.loading import load_experiment
from metaloom.workers.records import names as records

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
    progress: SearchProgress | None = None,
    trust_code: bool = False,
) -> SearchSummary:
    """Resume a search. If it has ended, do nothing; the summary says so.

    Args:
        name: The search.
        store: Folder of all records.
        executor: Instead of the search's first one.
        address: Instead of the search's first one.
        insecure_cluster: Join the cluster though ``RAY_AUTH_MODE`` is not ``token``; kept from the first session.
        concurrency: Instead of the search's first one.
        progress: Receives every event.
        trust_code: Import the classes that ``learner.architecture.of`` names: their code runs here.

    Raises:
        SearchError: There is no such search, its file or its data have changed, or another process runs it.
        BadEnvironment: The store, the disk or Ray is at fault.
    """
    home = Store(store)
    folder = home.existing_folder(name)
    state = load_search(name, store=store)
    if state.state in (records.FINISHED, records.FAILED):
        done = f"search '{name}' has ended already ({state.state}); there is nothing to resume"
        return summarize(folder, state, notes=[done])
    home.create()
    with writer_lock(folder):
        warning = credentials.adopt(home.path, folder)
        experiment = _unchanged(folder, state.created)
        credentials.resolved(home.path, experiment.tracking.uri or "")  # what is missing is said at once
        admit(experiment, trust_code)
        if data := state.created.get("data"):
            check_data(data, name, cache=home.cache)
        before = state.created.get("options") or {}
        options = RunOptions(
            executor or str(before.get("executor") or "ray"),
            address or (before.get("address") if executor != "inline" else None),
            concurrency or before.get("concurrency"),
            insecure_cluster or bool(before.get("insecure_cluster")),
        )
        notes = [warning] if warning else []
        with Journal(folder) as journal:
            return run_session(experiment, journal, store=home, options=options, progress=progress, notes=notes)


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
