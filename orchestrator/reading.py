"""Reads an experiment in any of its forms, and a search of a store."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from metaloom.orchestrator.journal import Journal
from metaloom.orchestrator.store import DEFAULT_STORE, Store
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.loading import load_experiment
from metaloom.workers.records.search import SearchRecord

if TYPE_CHECKING:
    from metaloom.learners.solvers.bilevel import Bilevel

Source: TypeAlias = Union[Experiment, str, Path, Mapping[str, Any], "Bilevel"]


def read_experiment(experiment: Source, changes: Sequence[str]) -> Experiment:
    """Return an experiment with changes, each as for ``--set``; raises ExperimentError with all problems."""
    if not isinstance(experiment, Experiment | str | Path | Mapping):
        from metaloom.learners.solvers.bilevel import document_of  # torch: only where a problem is given as an object

        experiment = document_of(experiment)
    if not isinstance(experiment, Experiment):
        return load_experiment(experiment, changes)
    return load_experiment(experiment.document, changes) if changes else experiment


def load_search(name: str, *, store: str | Path = DEFAULT_STORE) -> SearchRecord:
    """Read a search from its journal: its settings, trials, reports, tests; it may be running.

    Args:
        name: The search.
        store: Folder of all records.

    Raises:
        SearchError: There is no such search; with the nearest name.
        StoreError: Its journal cannot be read.
    """
    journal = Journal(Store(store).existing_folder(name), read_only=True)
    try:
        return SearchRecord.replay(journal.events())
    finally:
        journal.close()
