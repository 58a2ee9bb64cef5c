"""Tasks that are given from Python as objects: the store's cache keeps them, and the experiment names them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.reading import Source
from metaloom.orchestrator.retraining import experiment_of_bundle, is_bundle
from metaloom.orchestrator.store import Store
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.loading import read_document
from metaloom.search_spaces.reading.document import Document, plain
from metaloom.search_spaces.sections.stages import STAGES
from metaloom.workers.data.given_objects import holds_objects, section_of
from metaloom.workers.records.search import SearchRecord


def with_tasks(experiment: Source, tasks: Any, home: Store) -> Source:
    """Return the experiment with these tasks instead of its own; objects among them are written into the cache.

    Args:
        experiment: An experiment in any form; of a mapping the tasks section may hold objects too.
        tasks: See ``metaloom.search``; None leaves the experiment's own.
        home: The store.

    Raises:
        BadInput: The data cannot be used, or the experiment takes no tasks.
        BadEnvironment: The store cannot be written.
    """
    if tasks is None and isinstance(experiment, Mapping) and isinstance(experiment.get(STAGES), list):
        return {**experiment, STAGES: [_kept_stage(one, home) for one in experiment[STAGES]]}
    if tasks is None and isinstance(experiment, Mapping) and holds_objects(experiment.get("tasks", "")):
        tasks = experiment["tasks"]
    if tasks is None:
        return experiment
    if not isinstance(experiment, Experiment | str | Path | Mapping | Document):
        raise BadInput("tasks: a bilevel problem has its own data; leave tasks out")
    if STAGES in _document(experiment):
        raise BadInput("tasks: the experiment has stages, each with its own tasks; give the data in the stage's tasks")
    section = kept_section(tasks, home) if holds_objects(tasks) else plain(tasks)
    if isinstance(experiment, str | Path) and is_bundle(experiment):
        experiment = experiment_of_bundle(Path(experiment))
    if isinstance(experiment, str | Path | Document):
        document = experiment if isinstance(experiment, Document) else read_document(experiment)
        document.data["tasks"] = section
        return document
    given = experiment.document if isinstance(experiment, Experiment) else experiment
    return {**given, "tasks": section}


def _document(experiment: Source) -> Mapping[str, Any]:
    if isinstance(experiment, Experiment):
        return experiment.document
    if isinstance(experiment, Document):
        return experiment.data
    if isinstance(experiment, str | Path):
        return {} if is_bundle(experiment) else read_document(experiment).data
    return experiment if isinstance(experiment, Mapping) else {}


def _kept_stage(stage: Any, home: Store) -> Any:
    """Write the objects among the tasks of a stage into the store's cache."""
    if not isinstance(stage, Mapping) or not holds_objects(stage.get("tasks", "")):
        return stage
    return {**stage, "tasks": kept_section(stage["tasks"], home)}


def kept_section(tasks: Any, home: Store) -> dict[str, Any]:
    """Write objects into the store's cache, once, and return the tasks section that finds them."""
    with home.taken_back():
        home.create()
        return section_of(tasks, home.cache)


def give_again(tasks: Any, state: SearchRecord, name: str, home: Store) -> None:
    """Write the data of a search into the cache again; raises SearchError if it was begun on others."""
    begun = state.created["experiment"].get("tasks")
    if begun is None:
        raise SearchError(f"search '{name}' has stages, whose data are not given again; begin a new search")
    found = kept_section(tasks, home)
    path = begun.get("path") if isinstance(begun, Mapping) else None
    if found["path"] != path:
        other = f"({path or begun}) than those given ({found['path']})"
        raise SearchError(f"search '{name}' was begun on other data {other}")
