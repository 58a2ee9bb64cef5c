"""Reads an experiment in any of its forms, checks the code that it names, and reads a search of a store."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from metaloom.learners.errors import BadInput
from metaloom.learners.networks.reference import check_trusted, references_in, settings_of
from metaloom.learners.solvers.bilevel import Bilevel, document_of
from metaloom.orchestrator.retraining import experiment_of_bundle, is_bundle
from metaloom.orchestrator.store import DEFAULT_STORE, Store
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.reading.document import Document
from metaloom.search_spaces.sections.stages import STAGES
from metaloom.workers.records.search import SearchRecord

Source: TypeAlias = Experiment | str | Path | Mapping[str, Any] | Document | Bilevel


def read_experiment(experiment: Source, changes: Sequence[str]) -> Experiment:
    """Return an experiment, or that of a bundle, with changes, each as for ``--set``; raises ExperimentError."""
    if not isinstance(experiment, Experiment | str | Path | Mapping | Document):
        experiment = document_of(experiment)
    if isinstance(experiment, str | Path) and is_bundle(experiment):
        experiment = experiment_of_bundle(Path(experiment))
    if not isinstance(experiment, Experiment):
        return load_experiment(experiment, changes)
    return load_experiment(experiment.document, changes) if changes else experiment


def read_search(name: str, *, store: str | Path = DEFAULT_STORE) -> SearchRecord:
    """Read a search from its journal: its settings, trials, reports, tests; it may be running.

    Where the journal is damaged, its copies are read too, and ``warnings`` of the result says so.

    Args:
        name: The search.
        store: Folder of all records.

    Raises:
        SearchError: There is no such search; with the nearest name.
        RecordsError: Its journal cannot be read.
    """
    return SearchRecord.read(Store(store).existing_folder(name))


def admit(experiment: Experiment, trust_code: bool) -> None:
    """Refuse an experiment that names code to import, unless the user or an installed package trusts it.

    Args:
        experiment: The experiment; every member of every choice is checked.
        trust_code: Whether the user allows its code to run.

    Raises:
        LearnerError: The message names the import path, and how to trust it.
    """
    document = experiment.document
    if '"of"' not in json.dumps(document, default=str):
        return
    check_trusted(list(references_in(document)), trust_code)


def with_network(experiment: Experiment, network: Any, trust_code: bool) -> tuple[Experiment, bool]:
    """Return the experiment with a network from Python as its architecture, and whether its code is trusted.

    A class or function is trusted because the caller has imported it; an import path as text is not.

    Args:
        network: See ``metaloom.search``; None leaves the experiment as it is.
        trust_code: Whether the classes that the experiment names are trusted.

    Raises:
        BadInput: No other process could import the network, or the experiment searches whole learners.
    """
    if network is None:
        return experiment, trust_code
    document = experiment.document
    if STAGES in document:
        raise BadInput("network: the experiment has stages; give each its own as learner.architecture: {of: PATH}")
    learner = document["learner"]
    if isinstance(learner, str):
        learner = {"method": learner}
    if not isinstance(learner, dict) or "search" in learner:
        raise BadInput("network: the experiment searches whole learners; give each of them its architecture")
    others = {**document, "learner": {**learner, "architecture": None}}
    check_trusted(list(references_in(others)), trust_code)
    document["learner"] = {**learner, "architecture": settings_of(network)}
    return load_experiment(document), trust_code or not isinstance(network, str)
