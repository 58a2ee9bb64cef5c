"""Opens the tasks and builds the learner for each choice of a search before it starts.

Contradictory settings are rejected before anything is written; otherwise every trial that samples them would fail.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from metaloom.learners import build_learner
from metaloom.learners.base import Learner
from metaloom.learners.domains import Choice
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import BadInput, LearnerError
from metaloom.learners.outer import OuterConfig
from metaloom.learners.tensors import Tensors
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.reading import admit
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.knobs.sampling import Value, domains
from metaloom.search_spaces.reading.nodes import Alternatives
from metaloom.search_spaces.resolve import (
    Given,
    Resolved,
    baseline,
    baseline_name,
    defaults,
    resolve,
    searched_knobs,
    staged,
)
from metaloom.search_spaces.sections.stages import path_of
from metaloom.search_spaces.sections.starts import needed_stages
from metaloom.workers.bundle_reading import bundle_start, parameters_of
from metaloom.workers.checkpoint import Knowledge
from metaloom.workers.data import Source, open_source
from metaloom.workers.device import LiveBytes, check_precision
from metaloom.workers.failures import memory_refused
from metaloom.workers.seeds import derive_generator
from metaloom.workers.ways import TooManyWays, at_ways, unused_outputs, ways_of_split

FIELD = re.compile(r"((?:tasks|learner|inner|outer)[a-z_.\[\]0-9]*)(?:, [a-z_.]+)*: ")  # the start of a field's error
PART = re.compile(r"([a-z_0-9]+)|\[([0-9]+)\]")
STAGE = re.compile(r"stage ([\w-]+): ")  # before the error of a stage that is not the last
logger = logging.getLogger("metaloom")
MAX_MEMBERS = 200  # more would delay the start too long


def rehearse(
    experiment: Experiment,
    *,
    cache: Path,
    defaults_alone: bool = False,
    trust_code: bool = False,
    here: bool = False,
) -> dict[str, str]:
    """Prepare the tasks and build the learner once for each member of each choice, the rest at its default.

    Warns of unused parts of the user's data.

    Args:
        cache: The task sources' folder for prepared data.
        defaults_alone: Only the defaults will run, so no other member is built.
        trust_code: Whether classes that ``learner.architecture.of`` names may be imported.
        here: The trials will run on this machine, which must have their device and be able to compute in their
            precision.

    Returns:
        The digest of the data behind each ``tasks`` section, by the section as JSON, for ``check_data``.

    Raises:
        BadInput: Settings contradict each other; the message names the field, and the member of the choice.
        BadEnvironment: The cache cannot be written, or a trial cannot run on this machine.
    """
    admit(experiment, trust_code)
    opened: dict[str, Source] = {}
    notes: list[str] = []
    tried = [{}] if defaults_alone else list(members(experiment))
    settled = [(chosen, resolve(experiment, Given(chosen, defaults(experiment)))) for chosen in tried]
    for _, resolved in settled if here else ():  # before the tasks are prepared
        check_precision(resolved.resources, str(resolved.outer["precision"]))
    for chosen, resolved in settled:
        try:
            notes += _build(resolved, opened, experiment.seed, cache)
        except BadInput as error:
            raise SearchError(_located(experiment, chosen, str(error))) from error
    for asked in experiment.search.baselines:
        try:
            _build(baseline(experiment, asked), opened, experiment.seed, cache)
        except BadInput as error:
            name = baseline_name(asked)
            raise SearchError(f"search.baselines: {name} does not go with this experiment: {error}") from error
    of_tasks = [f"tasks: {note}" for source in opened.values() for note in source.notes]
    for note in dict.fromkeys([*of_tasks, *notes]):
        logger.warning("%s", note)
    return {tasks: source.digest for tasks, source in opened.items() if source.digest}


def check_data(digests: Mapping[str, str], search: str, *, cache: Path) -> None:
    """Refuse to resume ``search`` on changed data.

    Args:
        digests: The value that ``rehearse`` returned when the search began.
        cache: The task sources' folder for prepared data.

    Raises:
        BadInput: The data are missing or have changed.
    """
    for section, digest in digests.items():
        tasks = json.loads(section)
        if open_source(tasks, seed=0, cache=cache).digest != digest:
            data, advice = tasks.get("path") or tasks["source"], "Put them back, or begin a new search with --name"
            raise SearchError(f"the data of {data} have changed since search '{search}' was begun. {advice}")


def _build(resolved: Resolved, opened: dict[str, Source], seed: int, cache: Path) -> tuple[str, ...]:
    """Open the tasks and build the learner of each stage that a trial needs, each on the network of those before."""
    notes: list[str] = []
    networks: dict[str, Tensors] = {}
    needed = [staged(resolved, stage) for stage in needed_stages(resolved.stages, resolved.learner)]
    for stage in (*needed, resolved):
        named = f"stage {stage.stage}: " if stage.stage else ""
        try:
            found, networks[stage.stage] = _build_stage(stage, opened, seed, cache, networks)
        except BadInput as error:
            raise LearnerError(f"{named}{error}") from error
        notes += [f"{named}{note}" for note in found]
    return tuple(notes)


def drawn_networks(resolved: Resolved, seed: int, cache: Path) -> dict[str, Tensors]:
    """Return the network of each stage that a trial needs, as it is drawn: for checks that train nothing."""
    networks: dict[str, Tensors] = {}
    opened: dict[str, Source] = {}
    for stage in needed_stages(resolved.stages, resolved.learner):
        networks[str(stage["name"])] = _build_stage(staged(resolved, stage), opened, seed, cache, networks)[1]
    return networks


def _build_stage(
    resolved: Resolved, opened: dict[str, Source], seed: int, cache: Path, networks: Mapping[str, Tensors]
) -> tuple[tuple[str, ...], Tensors]:
    """Return the notes on one stage, and its network as it is drawn."""
    key = json.dumps(resolved.tasks, sort_keys=True)
    if key not in opened:
        opened[key] = open_source(resolved.tasks, seed=seed, cache=cache)
    OuterConfig.of(resolved.outer)
    with memory_refused():
        learner = build_learner(
            learner=resolved.learner,
            inner=resolved.inner,
            outer=resolved.outer,
            task=opened[key].shape,
            start=bundle_start(resolved.learner, networks),
            trust_code=True,  # ``rehearse`` has looked at every class that the experiment names
        )
        learner.rehearse()
        generator = derive_generator(seed, "rehearsal")
        with LiveBytes(limit=psutil.virtual_memory().available // 2):  # half: the next operation may copy all tensors
            phi = learner.init(generator)
            state = learner.begin(phi, generator)  # a network checks here whether it can read the examples
            if learner.task.class_features is not None:  # refuses examples beside what describes the classes
                learner.evaluate(phi, state, opened[key].episode("train", 0).episode, generator)
    notes = (*learner.notes, *_held_out_notes(learner, opened[key], resolved))
    return notes, parameters_of(Knowledge(phi, state, 0))


def _held_out_notes(learner: Learner, source: Source, resolved: Resolved) -> Iterator[str]:
    """Check that the learner takes the classes of validation and test, and say where outputs of it stay unused."""

    def build(task: TaskShape, start: Tensors | None) -> Learner:
        sections: dict[str, Any] = {name: getattr(resolved, name) for name in ("learner", "inner", "outer")}
        return build_learner(**sections, task=task, start=start, trust_code=True)

    for ways in {ways_of_split(source, split) for split in ("validation", "test")}:
        try:
            if unused := unused_outputs(at_ways(learner, ways, build), ways):
                yield f"tasks.evaluation: {unused}"
        except TooManyWays as problem:
            raise LearnerError(f"tasks.evaluation: {problem}") from problem


def members(experiment: Experiment) -> Iterator[Mapping[str, Value]]:
    """Yield the values that lead to each member of each choice, and to both ends of each range of the tasks."""
    yield {}
    knobs, tasks = searched_knobs(experiment), domains(experiment.space.tasks)
    choices = {name: domain.options for name, domain in knobs.items() if isinstance(domain, Choice)}
    pairs = [(choice, option) for choice, options in choices.items() for option in options]
    wanted: list[tuple[str, Value]] = list(pairs)
    for name, domain in tasks.items():
        wanted += [] if isinstance(domain, Choice) else [(name, domain.low), (name, domain.high)]
    for name, value in wanted[:MAX_MEMBERS]:
        above = {choice: option for choice, option in pairs if name.startswith(f"{choice}[{option}]")}
        yield {**above, name: value}


def _located(experiment: Experiment, chosen: Mapping[str, Value], complaint: str) -> str:
    """Put the file and line, and the member of the choice, before an error's text."""
    stage = STAGE.match(complaint)
    begin = FIELD.match(complaint, stage.end() if stage else 0)
    path: tuple[str | int, ...] = tuple(part[1] or int(part[2]) for part in PART.finditer(begin[1])) if begin else ()
    learner = experiment.space.learner
    stages = {one.name: one for one in experiment.space.stages()}
    if experiment.space.earlier and path:
        path = (*path_of(stages[stage[1]] if stage else experiment.space), *path)
    elif path[:1] == ("learner",) and isinstance(learner, Alternatives):
        member = chosen.get("learner", learner.default)
        path = ("learner", "search", list(learner.options).index(str(member)), *path[1:])
    members = " and ".join(f"{name} is {value}" for name, value in chosen.items())
    parts = (experiment.origin(path), f"where {members}" if members else "", complaint)
    return ": ".join(part for part in parts if part)
