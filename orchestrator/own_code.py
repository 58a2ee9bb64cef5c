"""Code of a user's own that the trials of an experiment need: what other processes than this one cannot have."""

from importlib.metadata import entry_points
from typing import Any

from metaloom.learners import ESTIMATORS, PROBLEMS, SLOTS
from metaloom.learners.networks.reference import references_in
from metaloom.learners.plugins import LEARNERS, TASK_SOURCES
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.executors import EXECUTORS, ExecutorRequest
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.reading.nodes import Fixed, Section, walk_nodes
from metaloom.search_spaces.sections.loops import task_catalogue

BILEVEL = "bilevel"  # the task source whose ``problem`` is the user's own
ADVICE = (
    "bring it in an installed package that declares an entry point (docs/extending.md), or use the inline executor "
    "(--executor inline)"
)


def check_code(experiment: Experiment, executor: str, request: ExecutorRequest) -> None:
    """Refuse code that the executor's workers cannot import, before any of them starts.

    The experiment's code must be trusted already: what an import path names may be looked for in another process.

    Raises:
        SearchError: Something is registered in this process alone, or an import path is not found by the workers.
    """
    check = EXECUTORS[executor].check_imports
    if check is None:
        return
    for place, kind, module in registered_here(experiment):
        raise SearchError(
            f"{place}: {kind} is registered in this process alone (by {module}), and trials run in others; {ADVICE}"
        )
    check(list(dict.fromkeys(references_in(experiment.document))), request)


def registered_here(experiment: Experiment) -> list[tuple[str, str, str]]:
    """Return what no installed package brings: the place, the name and the module that has registered it."""
    groups = (LEARNERS, TASK_SOURCES)
    packages = {"metaloom", *(one.module.partition(".")[0] for group in groups for one in entry_points(group=group))}
    found = []
    for root in experiment.space.roots():
        for node in walk_nodes(root):
            entry = _entry(node) if isinstance(node, Section) else None
            if entry is not None and entry[2].partition(".")[0] not in packages:
                found.append(entry)
    return found


def _entry(section: Section) -> tuple[str, str, str] | None:
    """Return a section's place, the name that fills it, and the module that has registered that; None if none has."""
    place, kind = section.place.name, section.kind
    name = place.rpartition(".")[2].partition("[")[0]
    entry: Any = None
    if place == "tasks":
        problem = section.fields.get("problem")
        if kind == BILEVEL and isinstance(problem, Fixed):
            entry, kind = PROBLEMS.get(str(problem.value)), str(problem.value)
            entry = getattr(entry, "inner", entry)  # a posed problem stands for itself
        else:
            entry = task_catalogue().configs.get(kind)
    elif name in SLOTS:
        entry = SLOTS[name].registry.get(kind)
    elif name == "hypergradient":
        entry = ESTIMATORS.get(kind)
    return None if entry is None else (place, kind, str(entry.__module__))
