"""Another method by ``--set learner.method=...``: what the file gives and the new method does not have is left out."""

import copy
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from metaloom.learners.outer import HYPERGRADIENT
from metaloom.search_spaces.errors import ExperimentError, InputProblem, Path, Problems, dotted
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.reading.document import Document
from metaloom.search_spaces.reading.overrides import STAGES, without_stage
from metaloom.search_spaces.sections.space import METHOD, takes_estimator

LOOPS = ("learner", "inner", "outer")  # the sections that depend on the method
OF_METHOD = re.compile(rf"(?:{STAGES}\.[\w-]+\.)?learner\.{METHOD}")
SET = "--set"  # how the origin of a value on the command line begins
logger = logging.getLogger("metaloom")


def fitted(given: Document, before: Document, build: Callable[[Document], Experiment]) -> Experiment:
    """Return the experiment of a document in which ``--set`` has changed the method.

    The settings of the file that the new method does not take are left out, each with a warning. What is wrong with
    the former method too, or was given by ``--set``, stays an error.

    Args:
        given: With all changes.
        before: With the same changes, but for the method.
        build: Reads a document; raises ExperimentError.

    Raises:
        ExperimentError: With every problem that no setting of the file explains.
    """
    problems = _problems(given, build)
    wrong = {problem.path for problem in _problems(before, build)}
    document, told = given, list[str]()
    while problems:
        superfluous = [one for one in problems if one.path not in wrong and _may_go(document, one)]
        if not superfluous:
            raise ExperimentError(problems, document.source)
        data = copy.deepcopy(document.data)
        for problem in superfluous:
            _remove(data, problem.path)
            told.append(f"{dotted(problem.path)} is left out: {problem.message.partition(';')[0]}")
        document = replace(document, data=data)
        problems = _problems(document, build)
    for line in dict.fromkeys(told):
        logger.warning("%s", line)
    added = "".join(f"# {line}\n" for line in dict.fromkeys(told))
    text = document.text and document.text.rstrip("\n") + "\n" + added
    return build(replace(document, text=text))


def method_of(document: Document) -> str | None:
    """Return the method that a document names, with stages that of each; None if it names none, or several."""
    stages = document.data.get(STAGES)
    given = stages if isinstance(stages, list) else [document.data]
    learners = [one.get("learner") if isinstance(one, dict) else None for one in given]
    named = [one.get(METHOD) if isinstance(one, dict) else one for one in learners]
    methods = [one for one in named if isinstance(one, str)]
    return ", ".join(methods) if methods and len(methods) == len(named) else None


def is_of_method(override: str) -> bool:
    """Return whether an override names another method and nothing else."""
    return OF_METHOD.fullmatch(override.partition("=")[0].strip()) is not None


def _problems(document: Document, build: Callable[[Document], Experiment]) -> list[InputProblem]:
    try:
        learner = build(document).space.learner
    except ExperimentError as error:
        return list(error.problems)
    place, method = ("outer", HYPERGRADIENT), method_of(document)
    given = (document.data.get("outer") or {}).get(HYPERGRADIENT)
    kind = given.get("kind") if isinstance(given, dict) else given
    if method is None or given is None or not isinstance(kind, str) or takes_estimator(learner, method, given):
        return []
    origin = Problems(document.origins).origin(place)
    return [InputProblem(place, f"{method} does not take {kind}", origin)]


def _may_go(document: Document, problem: InputProblem) -> bool:
    """Return whether a problem is of a setting of the file in a section that depends on the method."""
    path, own = problem.path, without_stage(problem.path)
    if len(own) < 2 or own[0] not in LOOPS or own == ("learner", METHOD) or problem.origin.startswith(SET):
        return False
    if any(place[: len(path)] == path and origin.startswith(SET) for place, origin in document.origins.items()):
        return False  # a part of it was given by the user just now
    return _holder(document.data, path) is not None


def _holder(data: Any, path: Path) -> dict[str, Any] | None:
    """Return the mapping that has the last part of ``path``; None if there is none."""
    for part in path[:-1]:
        is_item = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if not is_item and not (isinstance(data, dict) and part in data):
            return None
        data = data[part]
    return data if isinstance(data, dict) and path[-1] in data else None


def _remove(data: dict[str, Any], path: Path) -> None:
    holder = _holder(data, path)
    if holder is not None:  # else it went with what it was in
        del holder[str(path[-1])]
